"""What keeps the project workable: rules that no other test would notice being broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 400
HEAVY = ("textual", "llama_cpp", "prompt_toolkit")


def tracked_files() -> list[Path]:
    """Every file that is, or is about to be, in the repository."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_style_types_and_import_contracts_hold():
    """Without it, a contributor's machine and the rules drift apart unseen."""
    done = subprocess.run(
        [ROOT / "tools" / "check"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_grows_past_what_one_can_read():
    for path in tracked_files():
        if path.suffix == ".py" and path.is_relative_to(ROOT / "qwenterm"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= MOST_LINES, f"{path.relative_to(ROOT)} has {lines} lines: it is two"


def test_nothing_names_a_registry_or_the_machine_it_was_written_on():
    """Such names leak where the authors work, and are wrong on every other machine."""
    private = re.compile(
        "|".join(
            # Written in pieces, so that this file does not find itself.
            ("pypi" + r"\.org", "files\\.python" + "hosted", "registry\\.npm" + "js", "/" + "work/")
        )
    )
    for path in tracked_files():
        if path.suffix in {".svg", ".gguf", ".png"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found = private.search(text)
        assert not found, f"{path.relative_to(ROOT)} names {found.group() if found else ''}"


@pytest.mark.parametrize("package", ["agent", "agent.loop", "tools.toolbox", "client"])
def test_the_agent_side_loads_no_model_and_no_screen(package: str):
    """An editor or a server that embeds the agent must not pay for, or crash with, either."""
    code = (
        f"import sys, qwenterm.{package}\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_the_first_answer_of_the_command_line_imports_nothing_heavy(arguments: list[str]):
    """`qwenterm --version` is how people meet the program: it must come at once."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "qwenterm", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not loaded & {*HEAVY, "pydantic", "httpx", "asyncio", "numpy", "jinja2", "jsonschema"}


def test_the_readme_names_the_two_commands_and_they_run():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("./tools/run", "./tools/test"):
        assert command in text
        script = ROOT / command
        assert os.access(script, os.X_OK)
    done = subprocess.run(["tools/run", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("qwenterm ")
    assert done.stderr == ""


def test_run_works_from_any_folder_and_through_a_link(tmp_path: Path):
    """People link it into a folder on their PATH and call it where they work."""
    link = tmp_path / "qwenterm"
    link.symlink_to(ROOT / "tools" / "run")
    done = subprocess.run(
        [link, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_readme_links_lead_somewhere():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_two_set_ups_at_once_wait_for_each_other(tmp_path: Path):
    """Two terminals opened at once must not install into one environment together."""
    script = tmp_path / "tools" / "try"
    script.parent.mkdir()
    lib = (ROOT / "tools" / "lib.sh").read_text(encoding="utf-8")
    script.write_text(
        f"#!/usr/bin/env bash\nset -euo pipefail\nroot={tmp_path}\n{lib}\n"
        # The real lock around a set-up that only leaves a trace.
        'set_up() { echo begin >> "$root/log"; sleep 0.5; mkdir -p "$venv/bin"\n'
        'printf "#!/bin/sh\\n" > "$venv/bin/qwenterm"; chmod +x "$venv/bin/qwenterm"\n'
        'echo end >> "$root/log"; }\nensure_environment run\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    (tmp_path / "pyproject.toml").write_text("", encoding="utf-8")
    time.sleep(0.01)
    both = [subprocess.Popen([script], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=20)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert (tmp_path / "log").read_text(encoding="utf-8").split() == ["begin", "end"]
