"""Which files there are, so that a small model reads one of them and not one that it made up.

The grammar of the next call lets `path` be nothing else. Only a look at names: whether a file may
be read is for the policy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from qwenterm.agent.guidance import Guide
from qwenterm.agent.runtime import Runtime

_READING_TOOLS = ("read", "edit")
# More names than this are no help for a small model, and each costs time in the grammar.
_MOST_FILES = 500
_SKIPPED = frozenset({".git", "node_modules", "__pycache__", ".venv"})
# A path that leads out of the folder, or into what is not listed, was meant as it is written.
_ELSEWHERE = re.compile(r"(?:^|[\s\"'`(])(?:~|/|\.\.)|\.git/|node_modules|\.venv")


def path_values(runtime: Runtime, guide: Guide) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Return what `path` may be, by tool; empty where it may be anything."""
    if not guide.active or _ELSEWHERE.search(guide.prompt):
        return {}
    files = _files(os.fspath(runtime.workspace))
    return {tool: {"path": files} for tool in _READING_TOOLS if tool in runtime.tools and files}


def _files(folder: str) -> list[str]:
    """Return the names of all files below, in order; none if they are too many."""
    found: list[str] = []
    seen = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        seen += 1 + len(names)
        if seen > 2 * _MOST_FILES:
            return []
        for name in names:
            path = os.path.relpath(f"{place}/{name}", folder)
            if path.isprintable():
                found.append(path)
    return sorted(found) if len(found) <= _MOST_FILES else []
