"""Unified diffs as coloured text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from textual.content import Content

from qwenterm.ui.render import sanitize

Kind = Literal["file", "hunk", "added", "removed", "same", "remark"]

_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_STYLES: dict[Kind, str] = {
    "file": "bold",
    "hunk": "$text-primary",
    "added": "$text-success",
    "removed": "$text-error",
    "same": "",
    "remark": "$foreground 60%",
}


def rows(diff: str) -> Iterator[tuple[Kind, str]]:
    """Yield a unified diff's lines with what they are.

    The counts of the hunk headers decide, so a removed line that begins with `--` is no header.
    """
    old = new = 0
    for line in diff.rstrip("\n").split("\n") if diff else ():
        hunk = _HUNK.match(line)
        if old <= 0 and new <= 0:
            if hunk:
                old, new = (int(count or 1) for count in hunk.groups())
                yield "hunk", line
            else:
                yield "remark" if line.startswith("\\") else "file", line
        elif line.startswith("+"):
            new -= 1
            yield "added", line
        elif line.startswith("-"):
            old -= 1
            yield "removed", line
        elif line.startswith("\\"):
            yield "remark", line
        else:
            old, new = old - 1, new - 1
            yield "same", line


def coloured(diff: str) -> Content:
    """Return the whole diff, in order, with what it adds and removes in colour."""
    return Content("\n").join(
        [Content.styled(line, _STYLES[kind]) for kind, line in rows(sanitize(diff))]
    )


def counts(diff: str) -> tuple[int, int]:
    """Return how many lines a diff adds and removes."""
    kinds = [kind for kind, _line in rows(diff)]
    return kinds.count("added"), kinds.count("removed")
