"""Pieces of llama.cpp's grammar notation (GBNF) that both call syntaxes and schemas are made of."""

from __future__ import annotations

from collections.abc import Sequence

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def literal(text: str) -> str:
    """Return GBNF for exactly `text`."""
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'


def choice(texts: Sequence[str]) -> str:
    """Return GBNF for exactly one of `texts`, branching only where they differ.

    A grammar carries every open alternative along with each token, so a plain list of a thousand
    file names would be checked a thousand times.
    """
    return _branches(sorted(set(texts)))


def _branches(texts: Sequence[str], depth: int = 0) -> str:
    """Return GBNF for one of the sorted, different `texts`, each without its first `depth`."""
    groups: dict[str, list[str]] = {}
    for text in texts:
        groups.setdefault(text[depth : depth + 1], []).append(text)
    options: list[str] = []
    for first, group in groups.items():
        if not first or len(group) == 1:
            options.append(literal(group[0][depth:]))
        else:
            common = _common_length(group[0], group[-1])
            options.append(f"{literal(group[0][depth:common])} {_branches(group, common)}")
    return options[0] if len(options) == 1 else f"({' | '.join(options)})"


def _common_length(first: str, last: str) -> int:
    """Return how much the first and the last of sorted texts, and so all of them, share."""
    length = 0
    while length < len(first) and length < len(last) and first[length] == last[length]:
        length += 1
    return length
