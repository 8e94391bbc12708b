"""Facts about where a session takes place, for the first user message: folder, date, git, files.

Found by reading a few names and one small file; nothing is executed.
"""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

_MOST_NAMES = 24
_LONGEST_NAME = 60


def describe(workspace: Path) -> str:
    """Return the facts as one line; names that could break it are left out."""
    today = datetime.datetime.now().astimezone().date().isoformat()
    # Only the name: given the whole path, small models write it into calls and get it wrong.
    # And not where a folder below has the same name: they take the one for the other.
    name = workspace.name
    plain = name and name.isprintable() and not (workspace / name).exists()
    facts = [*([f"folder {name}"] if plain else []), f"today {today}", platform.system()]
    branch = _branch(workspace)
    if branch:
        facts.append(f"git branch {branch}")
    names = _names(workspace)
    if names:
        facts.append(f"contains {names}")
    return "; ".join(facts)


def _names(workspace: Path) -> str:
    try:
        entries = sorted(os.scandir(workspace), key=lambda entry: entry.name)
    except OSError:
        return ""
    names = [
        entry.name + ("/" if entry.is_dir() else "")
        for entry in entries
        if not entry.name.startswith(".")
        and entry.name.isprintable()
        and len(entry.name) <= _LONGEST_NAME
    ]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _branch(workspace: Path) -> str:
    for folder in (workspace, *workspace.parents):
        head = folder / ".git" / "HEAD"
        try:
            text = head.read_text(encoding="utf-8", errors="replace")[:300].strip()
        except OSError:
            continue
        name = text.removeprefix("ref: refs/heads/")
        return name if name != text and name.isprintable() else ""
    return ""
