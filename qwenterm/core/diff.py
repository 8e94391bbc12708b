"""Unified diffs of effects: what a person approves and a log keeps."""

from __future__ import annotations

import difflib
from pathlib import Path

from qwenterm.core.types import Effect, FileChange

# difflib is quadratic; past this the sizes say enough.
_LARGEST = 400_000


def unified(effect: Effect, workspace: Path) -> str:
    """Return the effect as a unified diff with paths relative to `workspace`."""
    return "".join(_one(change, workspace) for change in effect.changes)


def _one(change: FileChange, workspace: Path) -> str:
    try:
        name = change.path.relative_to(workspace).as_posix()
    except ValueError:
        name = str(change.path)
    before, after = change.before, change.after
    if before == after:
        return ""
    old_name = "/dev/null" if before is None else f"a/{name}"
    new_name = "/dev/null" if after is None else f"b/{name}"
    header = f"--- {old_name}\n+++ {new_name}\n"
    old, new = before or b"", after or b""
    if b"\0" in old or b"\0" in new:
        return f"{header}binary: {len(old)} bytes -> {len(new)} bytes\n"
    if len(old) + len(new) > _LARGEST:
        return f"{header}too large to show: {len(old)} bytes -> {len(new)} bytes\n"
    lines = difflib.unified_diff(_lines(old), _lines(new), old_name, new_name, lineterm="\n")
    text = "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )
    return text or header


def _lines(data: bytes) -> list[str]:
    # Only newlines end a line: splitlines would also cut at form feeds and the like.
    text = data.decode("utf-8", "replace")
    return [line + "\n" for line in text.split("\n")[:-1]] + (
        [last] if (last := text.rpartition("\n")[2]) else []
    )
