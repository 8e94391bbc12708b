"""Keeps what git executes as it was: hooks and configuration of the workspace's repository.

The second line of defence. Bubblewrap mounts these read-only, but cannot where there is no
repository yet, and Landlock has no exceptions inside a writable folder. So they are remembered
before a command that may write, and put back afterwards.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FILES = ("config", "config.worktree", "info/attributes")
_LARGEST = 1 << 20


@dataclass(frozen=True)
class GitParts:
    """Content by path relative to `.git`, with the mode; `existed`: there was a repository."""

    existed: bool
    files: Mapping[str, tuple[bytes, int]]


def remember(workspace: Path) -> GitParts:
    """Return the executable parts of the workspace's `.git` as they are now."""
    folder = workspace / ".git"
    existed = folder.is_dir() and not folder.is_symlink()
    return GitParts(existed, _read(folder) if existed else {})


def restore(workspace: Path, before: GitParts) -> list[str]:
    """Put back what differs from `before`; returns the names of what was put back or removed."""
    folder = workspace / ".git"
    restored: list[str] = []
    if (before.existed and not folder.is_dir()) or folder.is_symlink():
        _remove(folder)
    elif not folder.is_dir():
        return []
    for name in ("hooks", "info"):
        if (folder / name).is_symlink():
            (folder / name).unlink()
            restored.append(f".git/{name}")
    now = _read(folder)
    for name in sorted(now.keys() - before.files.keys()):
        # A repository that the command itself made needs its configuration; hooks it does not.
        if before.existed or (name.startswith("hooks/") and not name.endswith(".sample")):
            _remove(folder / name)
            restored.append(f".git/{name}")
    for name, (content, mode) in before.files.items():
        if now.get(name) != (content, mode):
            path = folder / name
            _remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(mode)
            restored.append(f".git/{name}")
    return restored


def _read(folder: Path) -> dict[str, tuple[bytes, int]]:
    paths = [folder / name for name in _FILES]
    if (folder / "hooks").is_dir() and not (folder / "hooks").is_symlink():
        paths += sorted((folder / "hooks").iterdir())
    found: dict[str, tuple[bytes, int]] = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = (b"link", 0)
        elif path.is_file() and path.stat().st_size <= _LARGEST:
            found[name] = (path.read_bytes(), path.stat().st_mode & 0o777)
        elif path.exists():
            found[name] = (b"other", 0)
    return found


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
