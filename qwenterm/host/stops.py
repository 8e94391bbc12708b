"""Stop strings in streamed text: hold back what may become one, end at the first."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Feed it text; it returns what may be shown. `stopped` is set once a stop string came."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """Take more text and return what is certain to come before any stop string."""
        if not self._stops:
            return text
        if self.stopped:
            return ""
        self._held += text
        found = [self._held.find(stop) for stop in self._stops if stop in self._held]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        keep = max(
            length
            for stop in self._stops
            for length in range(len(stop))
            if self._held.endswith(stop[:length])
        )
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown

    def finish(self) -> str:
        """The text is over: return what was held back."""
        shown, self._held = self._held, ""
        return shown
