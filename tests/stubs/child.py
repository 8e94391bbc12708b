"""Starts qwenterm as a process of its own, in a world of its own: nothing of the user's is seen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 30


@dataclass(frozen=True)
class World:
    """A home folder, its configuration, and a git repository to work in."""

    folder: Path

    @property
    def home(self) -> Path:
        """The home folder."""
        return self.folder / "home"

    @property
    def project(self) -> Path:
        """The repository."""
        return self.home / "project"

    @property
    def config(self) -> Path:
        """The configuration file; it need not exist."""
        return self.folder / "config" / "qwenterm" / "config.toml"

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the variables for a child; PATH and the like come from the test's own."""
        own = {
            name: value
            for name, value in os.environ.items()
            # A proxy or an unbuffered stdout of the developer's would change what the child does.
            if (
                not name.startswith(("QWENTERM_", "XDG_", "PYTEST_", "PYTHON"))
                and not name.lower().endswith("_proxy")
            )
            or name == "PYTHONPATH"
        }
        return {
            **own,
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "QWENTERM_RUNTIME_DIR": str(self.folder / "run"),
            "TERM": "xterm-256color",
            **changes,
        }

    def configure(self, text: str) -> Path:
        """Write the configuration file."""
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(text, encoding="utf-8")
        return self.config

    def start(
        self,
        *arguments: str,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start qwenterm without a controlling terminal; nobody is there to be asked."""
        return subprocess.Popen(
            command(arguments),
            cwd=cwd or self.project,
            env=self.environment() if environment is None else environment,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(
        self,
        *arguments: str,
        input: bytes | None = None,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> Ended:
        """Run qwenterm to its end; `input` is piped in, without it there is none."""
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        process = self.start(*arguments, cwd=cwd, environment=environment, stdin=stdin)
        return ended(process, input)


@dataclass(frozen=True)
class Ended:
    """A process that is over."""

    status: int
    stdout: str
    stderr: str


def command(arguments: Sequence[str]) -> list[str]:
    """The command line of a child."""
    return [sys.executable, "-m", "qwenterm", *arguments]


def ended(process: subprocess.Popen[bytes], input: bytes | None = None) -> Ended:
    """Wait for a child and return what came of it; one that hangs is killed."""
    try:
        stdout, stderr = process.communicate(input, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        raise AssertionError(f"it hangs; stderr so far: {stderr.decode()}") from None
    return Ended(process.returncode, (stdout or b"").decode(), stderr.decode())


def build_world(folder: Path) -> World:
    """Make the folders and the repository; `folder` should be short, a socket lies in it."""
    world = World(folder)
    world.project.mkdir(parents=True)
    (folder / "run").mkdir(mode=0o700)
    (world.project / "notes.txt").write_text("first line\nsecond line\n", encoding="utf-8")
    subprocess.run(["git", "init", "-q", "-b", "trunk"], cwd=world.project, check=True)
    return world
