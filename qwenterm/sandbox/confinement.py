"""What a command may see and use: the description that every backend turns into kernel rules."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qwenterm.core.types import Access

# Values that say who and where one is. Anything else (tokens, LD_*, GIT_*, *_OPTIONS) stays out.
_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "SHELL", "VIRTUAL_ENV")
# Inside the workspace, in the hands of the user's next git command.
_GIT_READ_ONLY = ("hooks", "config", "config.worktree", "info")


@dataclass(frozen=True)
class Limits:
    """Seconds of wall clock, bytes of memory, file and output, number of processes."""

    seconds: float = 120
    memory_bytes: int = 4 << 30
    processes: int = 256
    file_bytes: int = 1 << 30
    output_bytes: int = 8 << 20


@dataclass(frozen=True)
class Confinement:
    """One command's world; all paths are absolute and resolved.

    `visible` are paths to be readable even when they lie in a folder that is made private.
    """

    workspace: Path
    access: Access
    home: Path
    hidden: tuple[Path, ...] = ()
    limits: Limits = field(default_factory=Limits)
    visible: tuple[Path, ...] = ()


def filtered_environment(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the environment of a confined command: a short list of names, and safe settings."""
    kept = {name: environ[name] for name in _PASSED if environ.get(name)}
    kept |= {name: value for name, value in environ.items() if name.startswith("LC_")}
    if "LC_ALL" in kept:
        kept["LANG"] = kept.pop("LC_ALL")
    kept.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    return kept | {
        "HOME": str(home),
        "TERM": "dumb",
        # `run.blocked_write` reads the C library's messages.
        "LC_MESSAGES": "C",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def private_folders(home: Path) -> list[Path]:
    """Return the existing folders that a command gets empty, writable copies of."""
    candidates = [Path("/tmp"), Path("/var/tmp"), Path("/run"), home / ".cache"]  # noqa: S108
    real = dict.fromkeys(Path(os.path.realpath(path)) for path in candidates)
    return [path for path in real if path.is_dir()]


def git_read_only(workspace: Path) -> list[Path]:
    """Return what stays read-only in the workspace's `.git`, the folder itself first.

    The hooks folder is made if it is missing: what does not exist cannot be protected.
    """
    folder = workspace / ".git"
    if folder.is_symlink() or not folder.is_dir():
        return []
    hooks = folder / "hooks"
    if not hooks.exists() and not hooks.is_symlink():
        hooks.mkdir(exist_ok=True)
    return [path for name in _GIT_READ_ONLY if (path := folder / name).exists()]


def set_limits(limits: Limits) -> None:
    """Apply the per-process limits to the calling process, never above what it has already."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, limits.file_bytes)
    # Address space is no measure of memory (runtimes reserve terabytes); private data is.
    _lower(resource.RLIMIT_DATA, limits.memory_bytes)
    _lower(resource.RLIMIT_CPU, int(limits.seconds * 2) + 1)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
