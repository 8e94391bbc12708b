"""A control group for one command, where this process may make one: memory and processes.

Per-process limits do not hold root's fork bomb, and do not add up memory. A group does. Both
hierarchies are tried; where neither is writable the limits of `confinement` are all there is.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from qwenterm.sandbox.confinement import Limits

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Group:
    """Folders of one group, one per hierarchy; empty where nothing could be made."""

    folders: tuple[Path, ...]

    def enter(self) -> None:
        """Put the calling process in; children follow. Called between fork and exec."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        """Remove the group; its processes have ended by then."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def make_group(limits: Limits, root: Path = _ROOT) -> Group:
    """Return a new group with the limits set, or an empty one where that is not allowed."""
    name = f"qwenterm-{uuid.uuid4().hex[:12]}"
    settings = {"pids.max": str(limits.processes), "memory.max": str(limits.memory_bytes)}
    if (root / "cgroup.controllers").exists():
        folder = _make(_own(root, ""), name, settings)
        return Group((folder,) if folder else ())
    pids = _make(_own(root / "pids", "pids"), name, {"pids.max": str(limits.processes)})
    memory_settings = {"memory.limit_in_bytes": str(limits.memory_bytes)}
    memory = _make(_own(root / "memory", "memory"), name, memory_settings)
    return Group(tuple(folder for folder in (pids, memory) if folder))


def _own(mount: Path, controller: str) -> Path:
    """Return this process's folder in a hierarchy, the mount itself when it cannot be told."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") and (mount / path.lstrip("/")).is_dir():
                return mount / path.lstrip("/")
    return mount


def _make(parent: Path, name: str, settings: dict[str, str]) -> Path | None:
    folder = parent / name
    try:
        folder.mkdir()
    except OSError:
        return None
    try:
        for key, value in settings.items():
            (folder / key).write_text(value)
        # Processes must be able to enter, or the group would stop the command from starting.
        return folder if os.access(folder / "cgroup.procs", os.W_OK) else _discard(folder)
    except OSError:
        return _discard(folder)


def _discard(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
