"""The line at the bottom: what is going on, the permission mode, the model, tokens and speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from qwenterm.core import events
from qwenterm.core.types import PermissionMode
from qwenterm.ui.render import sanitize

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAME_SECONDS = 0.15
_LONGEST_NAME = 24
_MODE_STYLES = {
    PermissionMode.ASK: "$text-success",
    PermissionMode.EDITS: "$text-warning",
    PermissionMode.AUTO: "$text-error",
    PermissionMode.PLAN: "$text-accent",
}


@dataclass
class Facts:
    """What the line tells; an empty `doing` means that no turn runs."""

    model: str
    mode: PermissionMode
    doing: str = ""
    fraction: float | None = None
    since: float = 0.0
    prompt: int = 0
    cached: int = 0
    speed: float = 0.0

    def take(self, event: events.Event) -> None:
        """Learn from an event."""
        if isinstance(event, events.TurnStarted):
            self.since = time.monotonic()
            self._now("waiting for the model")
        elif isinstance(event, events.LoadProgress):
            if event.fraction < 1:
                self._now("loading the model", event.fraction)
            else:
                self._now("waiting for the model")
        elif isinstance(event, events.PrefillProgress):
            self.prompt, self.cached = event.total, event.cached
            rest = max(1, event.total - event.cached)
            self._now("reading", (event.processed - event.cached) / rest)
        elif isinstance(event, events.ThinkingDelta):
            self._now("thinking")
        elif isinstance(event, events.TextDelta):
            self._now("writing")
        elif isinstance(event, events.ToolStarted):
            self._now(f"running {event.name}")
        elif isinstance(event, events.ApprovalRequested):
            self._now("waiting for your answer")
        elif isinstance(event, events.ToolFinished):
            self._now("waiting for the model")
        elif isinstance(event, events.Usage):
            self.prompt, self.cached = event.prompt, event.cached
            if event.completion_seconds > 0:
                self.speed = event.completion / event.completion_seconds
        elif isinstance(event, events.TurnEnded):
            self._now("")

    def _now(self, doing: str, fraction: float | None = None) -> None:
        self.doing, self.fraction = doing, fraction


def compose_line(facts: Facts, width: int, now: float) -> Content:
    """Return the line; in a narrow terminal, what matters least is left out."""
    left = _left(facts, now)
    right, gap = Content(""), width
    mode = Content.styled(facts.mode.value, _MODE_STYLES[facts.mode])
    for muted in _shorter_and_shorter(facts):
        parts = [mode, *(Content.styled(part, "$foreground 60%") for part in muted)]
        right = Content(" · ").join(parts)
        gap = width - left.cell_length - right.cell_length
        if gap >= 2:
            break
    return Content.assemble(left, " " * max(1, gap), right)


def _shorter_and_shorter(facts: Facts) -> Iterator[list[str]]:
    """Yield what stands beside the mode, whole at first; the last is empty."""
    name = _short(facts.model)
    speed = [f"{facts.speed:.0f} tok/s"] if facts.speed else []
    tokens = [f"{facts.prompt:,} tokens"] if facts.prompt else []
    if facts.prompt and facts.cached:
        yield [name, f"{tokens[0]}, {facts.cached:,} reused", *speed]
    yield [name, *tokens, *speed]
    yield [name, *tokens]
    yield [name]
    yield []


def _short(model: str) -> str:
    """Return a model's name; of a file, the name without folders and ending."""
    name = sanitize(model).rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _left(facts: Facts, now: float) -> Content:
    if not facts.doing:
        return Content.styled("/help", "$foreground 60%")
    frame = _FRAMES[int(now / _FRAME_SECONDS) % len(_FRAMES)]
    fraction = "" if facts.fraction is None else f" {max(0.0, min(1.0, facts.fraction)):.0%}"
    seconds = int(now - facts.since)
    elapsed = f"{seconds} s" if seconds < 60 else f"{seconds // 60} min {seconds % 60} s"
    return Content.assemble(
        (f"{frame} ", "$text-accent"),
        f"{sanitize(facts.doing)}{fraction}",
        (f"  {elapsed}", "$foreground 60%"),
    )


class Status(Static):
    """Shows `Facts`, and moves only while a turn runs."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(id="status", markup=False)
        self.facts = facts
        self._timer: Timer | None = None

    def on_mount(self) -> None:
        """Draw for the first time."""
        self._timer = self.set_interval(_FRAME_SECONDS, self.redraw, pause=True)
        self.redraw()

    def on_resize(self) -> None:
        """Fit the new width."""
        self.redraw()

    def show(self, event: events.Event) -> None:
        """Learn from an event. Drawing waits for the timer: tokens may come by the thousand."""
        self.facts.take(event)
        if isinstance(event, events.TurnStarted) and self._timer is not None:
            self._timer.resume()
        elif isinstance(event, events.TurnEnded) and self._timer is not None:
            self._timer.pause()
        else:
            return
        self.redraw()

    def stopping(self) -> None:
        """The turn was told to stop and has not ended yet."""
        self.facts.doing, self.facts.fraction = "stopping", None
        self.redraw()

    def forget(self) -> None:
        """A new conversation has no tokens yet."""
        self.facts.prompt = self.facts.cached = 0
        self.redraw()

    def set_mode(self, mode: PermissionMode) -> None:
        """Show another permission mode."""
        self.facts.mode = mode
        self.redraw()

    def redraw(self) -> None:
        """Draw the line for the width that there is."""
        line = compose_line(self.facts, self.size.width, time.monotonic())
        self.update(line, layout=False)
