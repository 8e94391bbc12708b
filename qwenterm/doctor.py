"""`qwenterm doctor`: every missing or weak part of this installation, with its remedy."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwenterm import __version__
from qwenterm import config as configuration
from qwenterm.connection import Endpoint
from qwenterm.core.errors import QwentermError
from qwenterm.host import lifecycle
from qwenterm.models.hardware import detect
from qwenterm.models.resolve import resolve
from qwenterm.sandbox.backends import choose
from qwenterm.tools.search import ripgrep_path


@dataclass(frozen=True)
class Finding:
    """One line: `good`, and what was found or what to do."""

    good: bool
    part: str
    text: str


def main(arguments: Sequence[str]) -> int:
    """Print the findings; returns 0 when all is well, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="qwenterm doctor", description=__doc__)
    parser.parse_args(arguments)
    findings = examine()
    width = max(len(finding.part) for finding in findings)
    for finding in findings:
        mark = "ok  " if finding.good else "FIX "
        sys.stdout.write(f"{mark}{finding.part:{width}}  {finding.text}\n")
    return 0 if all(finding.good for finding in findings) else 1


def examine() -> list[Finding]:
    """Return every finding, in the order in which a turn would need the parts."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("qwenterm", _program),
        ("config", _config),
        ("engine", _engine),
        ("hardware", _hardware),
        ("model", _model),
        ("host", _host),
        ("sandbox", _sandbox),
        ("search", _search),
        ("git", _git),
    ]
    findings: list[Finding] = []
    told: set[str] = set()
    for part, check in checks:
        try:
            findings.append(check())
        except QwentermError as error:
            # A wrong setting stops the checks that need the settings too: said once.
            text = "see above" if str(error) in told else str(error)
            told.add(str(error))
            findings.append(Finding(False, part, text))
    return findings


def _program() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(True, "qwenterm", f"{__version__} on Python {version}")


def _config() -> Finding:
    configuration.load()
    path = configuration.user_path()
    return Finding(True, "config", str(path) if path.exists() else f"{path} (none: the defaults)")


def _engine() -> Finding:
    if importlib.util.find_spec("llama_cpp") is None:
        text = "llama-cpp-python is not installed: run ./tools/run, or pip install llama-cpp-python"
        return Finding(False, "engine", text)
    return Finding(True, "engine", "llama-cpp-python is installed")


def _hardware() -> Finding:
    hardware = detect()
    gpus = ", ".join(f"{gpu.name} ({gpu.total >> 30} GiB)" for gpu in hardware.gpus)
    text = f"{hardware.cpu_count} cores, {hardware.ram_bytes >> 30} GiB memory, {gpus or 'no GPU'}"
    if hardware.gpus and not hardware.offload:
        remedy = 'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall llama-cpp-python'
        return Finding(False, "hardware", f"{text}; the engine was built without CUDA: {remedy}")
    return Finding(True, "hardware", text)


def _model() -> Finding:
    config = configuration.load()
    if config.endpoint.base_url:
        model = Endpoint(config.endpoint)
        asyncio.run(model.prepare(lambda _fraction: None))
        return Finding(True, "model", f"{config.endpoint.base_url} answers")
    found = resolve(config)
    return Finding(True, "model", f"{found.id}, context {found.n_ctx} tokens, {found.path}")


def _host() -> Finding:
    facts = asyncio.run(lifecycle.status(lifecycle.runtime_directory()))
    if facts is None:
        return Finding(True, "host", "not running; it starts with the first question")
    return Finding(facts["state"] != "error", "host", f"{facts['state']}, process {facts['pid']}")


def _sandbox() -> Finding:
    backend = choose(configuration.load().sandbox.backend)
    return Finding(backend.name == "bubblewrap", "sandbox", backend.weaker or backend.name)


def _search() -> Finding:
    path = ripgrep_path()
    found = Path(path).exists() or shutil.which(path) is not None
    return Finding(found, "search", path if found else "ripgrep is missing: pip install ripgrep")


def _git() -> Finding:
    path = shutil.which("git")
    return Finding(path is not None, "git", path or "git is missing: install the package `git`")
