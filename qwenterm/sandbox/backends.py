"""Which kernel boundary this machine offers: probed by running a real command in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qwenterm.core.types import Access
from qwenterm.sandbox import bubblewrap, landlock
from qwenterm.sandbox.confinement import Confinement, filtered_environment

BackendName = Literal["bubblewrap", "landlock", "none"]
_PROBE_SECONDS = 10


@dataclass(frozen=True)
class Backend:
    """How commands are run here. `weaker` says in one line what it does not hold, if anything."""

    name: BackendName
    program: str = ""
    weaker: str = ""

    @property
    def contained(self) -> bool:
        """Whether the kernel holds commands back."""
        return self.name != "none"

    def arguments(
        self, command: Sequence[str], confinement: Confinement, environment: Mapping[str, str]
    ) -> list[str]:
        """Return the command line that runs `command` behind this boundary."""
        if self.name == "bubblewrap":
            return bubblewrap.arguments(self.program, command, confinement, environment)
        argv = [sys.executable, "-I", "-m", "qwenterm.sandbox.launcher"]
        argv += ["--workspace", str(confinement.workspace), "--home", str(confinement.home)]
        argv += ["--processes", str(confinement.limits.processes)]
        if self.name == "landlock":
            argv.append("--landlock")
        if confinement.access is Access.WORKSPACE:
            argv.append("--writable")
        for path in confinement.hidden:
            argv += ["--hidden", str(path)]
        for path in confinement.visible:
            argv += ["--visible", str(path)]
        return [*argv, "--", *command]


def choose(setting: str, environ: Mapping[str, str] = os.environ) -> Backend:
    """Return the strongest backend that works here; `setting` is `sandbox.backend`.

    A backend that was asked for by name and does not work is not replaced by a weaker one: the
    answer is then "none", and every command is asked.
    """
    reasons: list[str] = []
    if setting in ("auto", "bubblewrap"):
        program = shutil.which("bwrap", path=environ.get("PATH"))
        if program is None:
            reasons.append("bubblewrap is not installed (package `bubblewrap`)")
        else:
            problem = _probe(Backend("bubblewrap", program))
            if not problem:
                return Backend("bubblewrap", program)
            reasons.append(f"bubblewrap does not work here ({problem})")
    if setting in ("auto", "landlock"):
        version = landlock.abi() if sys.platform == "linux" else 0
        problem = _probe(Backend("landlock")) if version else "the kernel has no Landlock"
        if not problem:
            return Backend("landlock", weaker="; ".join([*reasons, _landlock_gaps(version)]))
        reasons.append(f"Landlock cannot be used ({problem})")
    if setting == "none":
        reasons.append("`sandbox.backend` is set to none")
    return Backend("none", weaker="; ".join(reasons) + ": every command is asked")


def _landlock_gaps(version: int) -> str:
    gaps = "commands are held by Landlock: they share the process table"
    return gaps if version >= 6 else f"{gaps} and can send signals"


def _probe(backend: Backend) -> str:
    """Run `true` in the backend; returns what went wrong, empty if nothing."""
    home = Path(os.path.realpath(Path.home()))
    confinement = Confinement(Path("/usr"), Access.READ_ONLY, home)
    argv = backend.arguments(["true"], confinement, filtered_environment(os.environ, home))
    try:
        result = subprocess.run(
            argv, capture_output=True, timeout=_PROBE_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if result.returncode == 0:
        return ""
    lines = result.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {result.returncode}"
