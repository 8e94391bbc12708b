"""The line on stderr that tells what is going on: moving on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shutil
import time
from typing import TextIO

_EVERY_SECONDS = 0.1
_CLEAR = "\r\x1b[2K"


class ProgressLine:
    """One moving line; `line` prints a lasting one above it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        plain = os.environ.get("TERM") == "dumb"
        self._moving = stream.isatty() and not plain
        self._colour = self._moving and not os.environ.get("NO_COLOR")
        self._shown = False
        self._last = 0.0
        self._told = ""

    def update(self, what: str, fraction: float, *, quiet: bool = False) -> None:
        """Show `what` with a percentage; `quiet`: say nothing where no line can move."""
        if not self._moving:
            if not quiet and what != self._told:
                self._told = what
                self._write(f"{what} ...\n")
            return
        now = time.monotonic()
        if now - self._last < _EVERY_SECONDS:
            return
        self._last = now
        width = shutil.get_terminal_size().columns
        text = f"{what} {max(0.0, min(1.0, fraction)):.0%}"
        self._write(_CLEAR + self._dim(text[: width - 1]))
        self._shown = True

    def line(self, text: str) -> None:
        """Print a lasting line."""
        self.clear()
        self._write(self._dim(f"· {text}") + "\n")

    def clear(self) -> None:
        """Take the moving line away."""
        if self._shown:
            self._write(_CLEAR)
            self._shown = False

    def _dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self._colour else text

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (BrokenPipeError, ValueError):
            self._moving = False
