"""Finds the place of an edit: exactly, else by the one run of lines that differs only in spaces.

When neither is there, the error shows the nearest region of the file, so that the model can copy
instead of remembering.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_AROUND = 2
_LONGEST_SHOWN = 24


class AnchorError(Exception):
    """The piece to replace is not there, or more than once; the text is for the model."""


def replace_anchor(text: str, old: str, new: str, *, everywhere: bool = False) -> tuple[str, int]:
    """Return the text with `old` replaced by `new`, and the line of the (first) change, 1-based.

    An empty `old` adds `new` at the end. Raises `AnchorError`.
    """
    if not old.strip():
        return _appended(text, new)
    if everywhere and old in text:
        return text.replace(old, new), text.count("\n", 0, text.index(old)) + 1
    count = text.count(old)
    if count == 1:
        at = text.index(old)
        return text.replace(old, new), text.count("\n", 0, at) + 1
    if count > 1:
        places = _lines_of(text, old)
        raise AnchorError(
            f"`old` occurs {count} times (lines {', '.join(map(str, places[:8]))}); "
            "set `all` to true to replace every one, or add the line before to make it unique"
        )
    return _replace_loosely(text, old, new)


def _appended(text: str, new: str) -> tuple[str, int]:
    if not new.strip():
        raise AnchorError("`old` and `new` are empty; copy the lines to replace from the file")
    if text and not text.endswith("\n"):
        text += "\n"
    line = text.count("\n") + 1
    return text + new.rstrip("\n") + "\n", line


def _replace_loosely(text: str, old: str, new: str) -> tuple[str, int]:
    lines = text.split("\n")
    wanted = [line.strip() for line in old.strip("\n").split("\n")]
    width = len(wanted)
    found = [
        start
        for start in range(len(lines) - width + 1)
        if [line.strip() for line in lines[start : start + width]] == wanted
    ]
    if len(found) != 1:
        why = "is not in the file" if not found else f"fits {len(found)} places"
        raise AnchorError(f"`old` {why}. {_nearest(lines, wanted)}")
    start = found[0]
    shift = _shift(old.strip("\n").split("\n"), lines[start : start + width])
    replacement = [_shifted(line, shift) for line in new.strip("\n").split("\n")] if new else []
    return "\n".join([*lines[:start], *replacement, *lines[start + width :]]), start + 1


def _shift(old: Sequence[str], real: Sequence[str]) -> str | int:
    """Return by how much the file is indented more than `old`: a prefix to add, or -n to cut."""
    for mine, theirs in zip(old, real, strict=True):
        if mine.strip():
            a = mine[: len(mine) - len(mine.lstrip())]
            b = theirs[: len(theirs) - len(theirs.lstrip())]
            if b.startswith(a):
                return b[len(a) :]
            return len(b) - len(a) if a.startswith(b) else ""
    return ""


def _shifted(line: str, shift: str | int) -> str:
    if not line.strip():
        return line
    if isinstance(shift, str):
        return shift + line
    return line[-shift:] if not line[:-shift].strip() else line


def _nearest(lines: Sequence[str], wanted: Sequence[str]) -> str:
    """Return the region most like `wanted`, numbered, in words for the model."""
    solid = [line for line in wanted if line]
    scores = {
        number: max(
            difflib.SequenceMatcher(None, line.strip(), other).ratio() for other in solid[:6]
        )
        for number, line in enumerate(lines[:2000])
        if line.strip()
    }
    if not scores:
        return "The file is empty."
    width = min(len(wanted), _LONGEST_SHOWN)
    totals = {
        start: sum(scores.get(number, 0.0) for number in range(start, start + width))
        for start in scores
    }
    start = max(totals, key=lambda number: totals[number])
    first = max(0, start - _AROUND)
    shown = lines[first : start + width + _AROUND]
    body = "\n".join(f"{first + n + 1}\t{line}" for n, line in enumerate(shown))
    return (
        f"The nearest lines are:\n{body}\nCopy `old` from them exactly, or leave `old` "
        "empty to add `new` at the end."
    )


def _lines_of(text: str, piece: str) -> list[int]:
    places: list[int] = []
    at = text.find(piece)
    while at >= 0:
        places.append(text.count("\n", 0, at) + 1)
        at = text.find(piece, at + len(piece))
    return places
