"""Applies an approved effect: each file at once or not at all, and only if nothing changed below.

The one place that changes the user's files.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from qwenterm.core.errors import QwentermError
from qwenterm.core.types import Effect, FileChange


class ChangedMeanwhileError(QwentermError):
    """A file is not what it was when the change was proposed."""


def apply_effect(effect: Effect) -> None:
    """Write every change of `effect` to disk.

    All files are checked before the first is written. Raises `ChangedMeanwhileError` when one is
    not as the effect found it, OSError when writing fails (files written before stay written,
    each of them whole).
    """
    for change in effect.changes:
        _check(change)
    for change in effect.changes:
        if change.after is None:
            change.path.unlink()
        else:
            _replace(change.path, change.after)


def _check(change: FileChange) -> None:
    # A link put in the way since the approval would lead somewhere that nobody approved.
    if Path(os.path.realpath(change.path)) != change.path:
        raise ChangedMeanwhileError(f"{change.path} now leads somewhere else")
    try:
        now: bytes | None = change.path.read_bytes()
    except FileNotFoundError:
        now = None
    if now != change.before:
        what = "was created" if change.before is None else "was changed" if now else "is gone"
        raise ChangedMeanwhileError(f"{change.path} {what} meanwhile; nothing was written")


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
