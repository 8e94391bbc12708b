"""Shows how a download is going: a bar with rate and time left, or a quiet line now and then.

Owns the drawing on stderr. A bar is drawn on a terminal that can move its cursor, without colour
with `NO_COLOR`; elsewhere and with `TERM=dumb` there is one line about every tenth of the way.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO

_WINDOW_SECONDS = 10
_REDRAW_SECONDS = 0.1


class DownloadProgress:
    """Draws the progress of a download on `stream`; call it with bytes done and total.

    `label` names what is fetched and may change. `say` prints a line without tearing the bar;
    `finish` ends the bar's line. `clock` gives seconds.
    """

    def __init__(
        self,
        stream: TextIO,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label = ""
        self._stream = stream
        self._clock = clock
        self._bar = stream.isatty() and environ.get("TERM", "dumb") != "dumb"
        self._color = self._bar and not environ.get("NO_COLOR")
        self._samples: deque[tuple[float, int]] = deque()
        self._drawn_at = float("-inf")
        self._tenth = -1
        self._bar_is_open = False

    def __call__(self, done: int, total: int) -> None:
        """Take note of `done` of `total` bytes and draw if it is time."""
        now = self._clock()
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()  # the download began anew
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW_SECONDS:
            self._samples.popleft()
        if self._bar:
            if now - self._drawn_at >= _REDRAW_SECONDS or done >= total:
                self._drawn_at = now
                self._draw(done, total)
        else:
            tenth = done * 10 // max(total, 1)
            if tenth > self._tenth:
                self._tenth = tenth
                self._write(f"{self.label}: {self._numbers(done, total)}\n")

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self.finish()
        self._write(f"{line}\n")

    def finish(self) -> None:
        """End the line of the bar, if one is open."""
        if self._bar_is_open:
            self._bar_is_open = False
            self._write("\n")

    def _draw(self, done: int, total: int) -> None:
        columns = shutil.get_terminal_size().columns
        text = f"{self.label} {self._numbers(done, total)}"
        width = min(columns - len(text) - 4, 40)
        bar = ""
        if width >= 5:
            filled = done * width // max(total, 1)
            full, rest = "#" * filled, "." * (width - filled)
            bar = f" [\x1b[36m{full}\x1b[0m{rest}]" if self._color else f" [{full}{rest}]"
        self._bar_is_open = True
        self._write(f"\r\x1b[K{text[: max(columns - 1, 1)]}{bar}")

    def _numbers(self, done: int, total: int) -> str:
        text = f"{done * 100 // max(total, 1):3}%  {done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        rate = self._rate()
        if not rate:
            return text
        text += f"  {rate / 1e6:,.1f} MB/s"
        left = (total - done) / rate
        return f"{text}  {duration(left)} left" if done < total else text

    def _rate(self) -> float:
        """Return bytes per second over the last seconds, 0 while nothing can be said."""
        (first, start), (last, end) = self._samples[0], self._samples[-1]
        return (end - start) / (last - first) if last > first else 0.0

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def duration(seconds: float) -> str:
    """Return `1 h 02 min`, `3 min 20 s` or `45 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole} s"
