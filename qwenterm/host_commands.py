"""`qwenterm host` and `qwenterm serve`: the model process in the user's hands."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from qwenterm import config as configuration
from qwenterm.connection import log_path, wanted
from qwenterm.core.errors import UnavailableError
from qwenterm.host import lifecycle
from qwenterm.models.resolve import resolve


def main(name: str, arguments: Sequence[str]) -> int:
    """Run `host ...` or `serve ...`; returns the exit status."""
    return _serve(arguments) if name == "serve" else _host(arguments)


def _host(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="qwenterm host", description=__doc__)
    parser.add_argument("action", choices=("status", "start", "stop", "log"))
    parser.add_argument("-m", "--model", help="catalogue id, or path of a GGUF file")
    options = parser.parse_args(arguments)
    directory = lifecycle.runtime_directory()
    if options.action == "log":
        return _log()
    if options.action == "stop":
        stopped = asyncio.run(lifecycle.stop(directory))
        sys.stdout.write("stopped\n" if stopped else "no host was running\n")
        return 0
    if options.action == "start":
        config = configuration.load(flags={"model": options.model})
        model = resolve(config, say=_say)
        asyncio.run(
            lifecycle.ensure(
                wanted(config, model),
                directory=directory,
                log=log_path(),
                idle_seconds=config.host.idle_minutes * 60,
                progress=lambda fraction: None,
            )
        )
    facts = asyncio.run(lifecycle.status(directory))
    if facts is None:
        sys.stdout.write("no host is running; it starts with the first question\n")
        return UnavailableError.status
    sys.stdout.write(_described(facts))
    return 0


def _described(facts: Mapping[str, Any]) -> str:
    lines = [f"state     {facts['state']}"]
    if facts["state"] == "loading":
        lines[0] += f" ({float(facts['progress']):.0%})"
    if facts.get("message"):
        lines.append(f"message   {facts['message']}")
    if facts.get("path"):
        lines += [f"model     {facts['path']}", f"context   {facts['n_ctx']} tokens"]
    lines.append(f"memory    {int(facts['memory_bytes']) / (1 << 20):.0f} MiB")
    lines.append(f"requests  {facts['busy']} running, {facts['waiting']} waiting")
    lines.append(f"idle      {float(facts['idle_seconds']):.0f} s")
    lines.append(f"process   {facts['pid']}")
    return "\n".join(lines) + "\n"


def _log() -> int:
    try:
        sys.stdout.write(log_path().read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        raise UnavailableError(f"{log_path()}: no log yet; no host was started") from None
    return 0


def _serve(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="qwenterm serve",
        description="Serve the model with an OpenAI-compatible API until interrupted.",
    )
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; there is no authentication"
    )
    parser.add_argument("-m", "--model", help="catalogue id, or path of a GGUF file")
    options = parser.parse_args(arguments)
    # The native library is loaded only by a process that serves.
    from qwenterm.host.process import run_server  # noqa: PLC0415
    from qwenterm.host.requests import LoadRequest  # noqa: PLC0415

    config = configuration.load(flags={"model": options.model})
    model = resolve(config, say=_say)
    plan = wanted(config, model)
    request = LoadRequest(
        path=plan.path,
        n_ctx=plan.n_ctx,
        n_gpu_layers=plan.n_gpu_layers,
        threads=plan.threads,
        batch=plan.batch,
        sequences=plan.sequences,
        cache_mb=plan.cache_mb,
        warm_folder=plan.warm_folder,
        warm_mb=plan.warm_mb,
    )

    def announce(port: int) -> None:
        sys.stderr.write(f"qwenterm: {model.id} at http://{options.host}:{port}/v1\n")
        sys.stderr.flush()

    try:
        return run_server(options.host, options.port, request, announce)
    except OSError as error:
        raise UnavailableError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror}; choose another "
            "--port"
        ) from None


def _say(text: str) -> None:
    sys.stderr.write(f"qwenterm: {text}\n")
