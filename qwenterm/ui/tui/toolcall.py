"""A tool call: one calm line that opens to its arguments, output and diff."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from textual.content import Content

from qwenterm.core.events import ToolFinished, ToolOutput, ToolStarted
from qwenterm.ui.render import call_summary, sanitize
from qwenterm.ui.tui.difference import coloured, counts
from qwenterm.ui.tui.fold import Fold

# What a person looks at while a command runs; a command can print gigabytes.
_TAIL_LINES = 200
_TAIL_COLUMNS = 500
# Results are cut for the model already; this is for settings that allow very long ones.
_RESULT_LINES = 400
# Long, and shown by the diff once there is one.
_IN_DIFF = ("content", "old", "new")


class Tail:
    """The last lines of a stream, however much went through it."""

    def __init__(self, lines: int = _TAIL_LINES, columns: int = _TAIL_COLUMNS) -> None:
        self._columns = columns
        self._most = lines * columns
        self._lines: deque[str] = deque(maxlen=lines)
        self._rest = ""
        self.total = 0

    def feed(self, text: str) -> None:
        """Take more output."""
        self.total += len(text)
        *lines, rest = (self._rest + text[-self._most :]).split("\n")
        self._lines.extend(line[: self._columns] for line in lines)
        self._rest = rest[-self._columns :]

    def text(self) -> str:
        """Return what is kept; of a line that was drawn over itself, the last state."""
        lines = [*self._lines, self._rest] if self._rest else list(self._lines)
        return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


class ToolCall(Fold):
    """One call from start to end; `call_id` tells which events belong to it."""

    def __init__(self, event: ToolStarted) -> None:
        super().__init__()
        self.call_id = event.id
        self._tool = sanitize(event.name)
        self._arguments = event.arguments
        self._tail = Tail()
        self._finished: ToolFinished | None = None
        self._stopped = False
        self._stale = False

    @property
    def running(self) -> bool:
        """Whether neither a result nor a stop has come."""
        return self._finished is None and not self._stopped

    def output(self, event: ToolOutput) -> None:
        """Take live output; it is drawn by the next `flush`."""
        self._tail.feed(event.text)
        self._stale = True

    def flush(self) -> None:
        """Draw the output that came since the last time, if anybody looks."""
        if self._stale and self.opened:
            self.redraw()
        self._stale = False

    def finish(self, event: ToolFinished) -> None:
        """Show the result."""
        self._finished = event
        self.redraw()

    def stop(self) -> None:
        """The turn ended before the call did."""
        self._stopped = True
        self.redraw()

    def header(self) -> Content:
        """Return state, name, what it is about, and how it ended."""
        mark, style = self._mark()
        parts = [
            (f"{mark} ", style),
            (self._tool, "bold"),
            f" {call_summary(self._arguments, _IN_DIFF)}",
        ]
        done = self._finished
        if done is None:
            if self._stopped:
                parts.append(("  stopped", "$foreground 60%"))
            return Content.assemble(*parts)
        if done.diff:
            added, removed = counts(done.diff)
            parts += [(f"  +{added}", "$text-success"), (f" -{removed}", "$text-error")]
        if done.exit_code:
            parts.append((f"  exit {done.exit_code}", "$text-error"))
        elif done.is_error:
            parts.append((f"  {first_line(done.text)}", "$text-error"))
        if done.seconds >= 1:
            parts.append((f"  {done.seconds:.0f} s", "$foreground 60%"))
        return Content.assemble(*parts)

    def body(self) -> Content:
        """Return the arguments, the output or result, and the diff."""
        done = self._finished
        arguments = self._arguments
        if done is not None and done.diff:
            arguments = {k: v for k, v in arguments.items() if k not in _IN_DIFF}
        parts = [_labelled(arguments)]
        text = self._tail.text() if done is None else _bounded(done.text)
        if text:
            parts.append(Content(sanitize(text)))
        if done is not None and done.diff:
            parts.append(coloured(_bounded(done.diff)))
        return Content("\n\n").join(part for part in parts if part)

    def _mark(self) -> tuple[str, str]:
        if self._finished is None:
            return ("■", "$foreground 60%") if self._stopped else ("●", "$text-accent")
        return ("✗", "$text-error") if self._finished.is_error else ("✓", "$text-success")


def first_line(text: str) -> str:
    """Return a text's first line, safe for a terminal."""
    return sanitize(text.strip()[:400]).partition("\n")[0]


def _labelled(arguments: Mapping[str, Any]) -> Content:
    lines: list[Content] = []
    for name, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text = sanitize(_bounded(text))
        separator = "\n" if "\n" in text else " "
        lines.append(Content.assemble((f"{sanitize(name)}:", "$foreground 60%"), separator, text))
    return Content("\n").join(lines)


def _bounded(text: str) -> str:
    lines = text.split("\n")
    if len(lines) <= _RESULT_LINES and len(text) <= _RESULT_LINES * _TAIL_COLUMNS:
        return text
    half = _RESULT_LINES // 2
    left_out = max(0, len(lines) - 2 * half)
    kept = [*lines[:half], f"({left_out} lines not shown)", *lines[-half:]] if left_out else lines
    return "\n".join(line[:_TAIL_COLUMNS] for line in kept)
