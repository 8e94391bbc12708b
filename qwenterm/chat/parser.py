"""Reads a model's output while it is being written.

Separates thinking, text and calls. Text that may turn out to be the beginning of a tag is held
back until that is clear, so nothing of a call ever shows as text. A call that the model begins in
another notation (a fenced JSON block, a bare object) is reported as soon as it is certain, before
any of it was shown, so that the caller can steer the model into the right one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from qwenterm.chat.formats import OPEN

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

# What small models write instead of the opening tag, with all white space taken out.
_FOREIGN = (
    '```json{"name":"',
    '```{"name":"',
    '```xml{"name":"',
    '{"name":"',
    '{{"name":"',
    '[{"name":"',
    '```json[{"name":"',
    '<tools>{"name":"',
    '<function_call>{"name":"',
    '<response>{"name":"',
    "<function=",
    "```xml<function=",
    "```xml<tool_call>",
    "```<tool_call>",
    "```json<tool_call>",
)


class Kind(Enum):
    """What a piece of output is."""

    TEXT = "text"
    THINKING = "thinking"
    CALL_OPENED = "call opened"
    FOREIGN_CALL = "foreign call"


@dataclass(frozen=True)
class Piece:
    """A piece of output.

    For TEXT and THINKING `text` is new text. For CALL_OPENED it is what already followed the
    opening tag. For FOREIGN_CALL it is everything that belongs to the call so far; the caller
    takes it out of the output and opens a proper call.
    """

    kind: Kind
    text: str


class OutputParser:
    """Feed it text as it comes; it returns the pieces that are certain.

    `thinking`: the prompt ends inside the thinking. `calls`: calls are to be recognised; without,
    everything after the thinking is text. After CALL_OPENED or FOREIGN_CALL the parser waits for
    `resume`, since what follows is the call syntax's business.
    """

    def __init__(self, *, thinking: bool, calls: bool) -> None:
        self.thinking = thinking
        self._calls = calls
        self._held = ""
        self._line_start = True
        self._after_thinking = False

    def feed(self, text: str) -> list[Piece]:
        """Take more output; return what is certain now, in order."""
        self._held += text
        pieces: list[Piece] = []
        while self._held:
            step = self._think() if self.thinking else self._answer()
            if step is None:
                break
            if step.text or step.kind in (Kind.CALL_OPENED, Kind.FOREIGN_CALL):
                pieces.append(step)
            if step.kind in (Kind.CALL_OPENED, Kind.FOREIGN_CALL):
                break
        return pieces

    def finish(self) -> list[Piece]:
        """The output is over: return what was held back, as text."""
        held, self._held = self._held, ""
        kind = Kind.THINKING if self.thinking else Kind.TEXT
        return [Piece(kind, held)] if held.strip() else []

    def resume(self) -> None:
        """A call is complete; what follows is text again."""
        self._held = ""
        self._line_start = True

    @property
    def held(self) -> str:
        """Return the text that was fed and not returned yet."""
        return self._held

    def _think(self) -> Piece | None:
        before, close, after = self._held.partition(THINK_CLOSE)
        if close:
            self.thinking = False
            self._after_thinking = True
            self._held = after
            return Piece(Kind.THINKING, before.rstrip("\n"))
        keep = _tail_that_may_become(self._held, (THINK_CLOSE, "\n" + THINK_CLOSE))
        return self._release(len(self._held) - keep, Kind.THINKING)

    def _answer(self) -> Piece | None:
        if self._after_thinking:
            # The blank line after the thinking belongs to neither.
            self._held = self._held.lstrip("\n")
            if not self._held:
                return None
            self._after_thinking = False
        if self._line_start and THINK_OPEN.startswith(self._held.strip()[: len(THINK_OPEN)]):
            stripped = self._held.lstrip()
            if stripped.startswith(THINK_OPEN):
                self.thinking = True
                self._held = stripped[len(THINK_OPEN) :].lstrip("\n")
                return Piece(Kind.THINKING, "")
            return None
        if not self._calls:
            return self._release(len(self._held), Kind.TEXT)
        position = self._held.find(OPEN)
        foreign = self._foreign()
        if position >= 0 and (foreign is None or position <= foreign):
            return self._open(position)
        if foreign is not None:
            if foreign > 0:
                return self._release(foreign, Kind.TEXT)
            return self._judge()
        keep = _tail_that_may_become(self._held, (OPEN,))
        # White space before a call is no text either.
        kept = self._held[: len(self._held) - keep].rstrip()
        return self._release(len(kept), Kind.TEXT)

    def _open(self, position: int) -> Piece:
        before, after = self._held[:position].rstrip(), self._held[position + len(OPEN) :]
        if before:
            self._held = self._held[len(before) :]
            return Piece(Kind.TEXT, before)
        self._held = ""
        return Piece(Kind.CALL_OPENED, after)

    def _foreign(self) -> int | None:
        """Return where a line begins that may be a call in another notation."""
        for match in re.finditer(r"^[ \t]*(?=\S)", self._held, re.M):
            if match.start() == 0 and not self._line_start:
                continue
            squeezed = re.sub(r"\s", "", self._held[match.end() :])
            if any(p.startswith(squeezed) or squeezed.startswith(p) for p in _FOREIGN):
                return match.start()
        return None

    def _judge(self) -> Piece | None:
        squeezed = re.sub(r"\s", "", self._held)
        if any(squeezed.startswith(pattern) for pattern in _FOREIGN):
            held, self._held = self._held, ""
            return Piece(Kind.FOREIGN_CALL, held)
        return None

    def _release(self, count: int, kind: Kind) -> Piece | None:
        if count <= 0:
            return None
        text, self._held = self._held[:count], self._held[count:]
        if kind is Kind.TEXT:
            self._line_start = text.endswith("\n")
        return Piece(kind, text)


def _tail_that_may_become(text: str, tags: tuple[str, ...]) -> int:
    """Return the length of the longest end of `text` that is a proper beginning of a tag."""
    longest = 0
    for tag in tags:
        for length in range(min(len(tag) - 1, len(text)), longest, -1):
            if text.endswith(tag[:length]):
                longest = length
                break
    return longest
