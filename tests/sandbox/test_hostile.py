"""The commands that fooled other agents: if these fail, the model can hurt its user."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from qwenterm.core.types import Intent, PermissionMode
from qwenterm.permissions.places import build_places
from qwenterm.permissions.policy import decide
from qwenterm.sandbox.backends import choose

RUNNER = Path(__file__).parent / "hostile_runner.py"
COMMANDS = Path(__file__).parent.parent / "data/hostile-commands.tsv"
BACKENDS = [name for name in ("bubblewrap", "landlock") if choose(name).contained]


def guarded(argv):
    """A sandbox that fails must not take the machine along: own processes, limits on top."""
    guard = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]
    if os.getuid() != 0:
        guard[1:1] = ["--user", "--map-root-user"]
    return [*guard, "prlimit", "--nproc=2000", f"--fsize={1 << 28}", *argv]


@pytest.mark.parametrize("access", ["read-only", "workspace"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_hostile_commands_leave_home_and_system_untouched(backend, access):
    # Not below /tmp, which the sandbox replaces: the real protection of a home is tried here.
    folder = Path(tempfile.mkdtemp(prefix=".hostile-", dir=Path(__file__).parent))
    try:
        argv = guarded([sys.executable, str(RUNNER), backend, access, str(folder)])
        environ = {**os.environ, "HOME": str(folder / "home")}
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=280, env=environ, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        report = json.loads(done.stdout.splitlines()[-1])
        assert report["backend"] == backend
        assert report["count"] >= 30
        assert report["problems"] == []
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_what_cannot_be_previewed_is_asked_in_every_mode_but_plan():
    lines = [line.split("\t", 1) for line in COMMANDS.read_text().splitlines()]
    asked = [line[1] for line in lines if line[0] == "ask"]
    assert len(asked) >= 4
    places = build_places(Path("/w"), home=Path("/h"), hidden=[], own=[])
    for command in asked:
        for mode in (PermissionMode.ASK, PermissionMode.EDITS, PermissionMode.AUTO):
            ruling = decide(mode, [Intent("exec", command)], places, contained=True)
            assert ruling.action == "ask", command
