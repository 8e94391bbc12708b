"""The scrolling list of what was said and done in a conversation.

Turns a turn's events into blocks. Text that streams in is collected and drawn a few times a
second, so that a fast model costs no more than a slow one.
"""

from __future__ import annotations

import time

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from qwenterm.core import events
from qwenterm.ui.render import sanitize
from qwenterm.ui.tui.answer import Answer
from qwenterm.ui.tui.approval import Approval
from qwenterm.ui.tui.fold import Fold
from qwenterm.ui.tui.toolcall import Tail, ToolCall

_FLUSH_SECONDS = 0.05
# Drawing a long answer takes longer than that; the rest of the time is for keys and events.
_DRAWING_SHARE = 0.25
# Each block costs layout time; what is older than this has left the screen long ago.
_MOST_BLOCKS = 400
_PROMPT_LINES = 12


class Thinking(Fold):
    """The model's reasoning, folded away."""

    def __init__(self) -> None:
        super().__init__()
        self._tail = Tail(lines=1000, columns=2000)
        self._started = time.monotonic()
        self._seconds: float | None = None
        self._stale = False

    def feed(self, text: str) -> None:
        """Take a piece of reasoning; it is drawn by the next `flush`."""
        self._tail.feed(text)
        self._stale = True

    def flush(self) -> None:
        """Draw what came since the last time, if anybody looks."""
        if self._stale and self.opened:
            self.redraw()
        self._stale = False

    def finish(self) -> None:
        """The reasoning is over."""
        self._seconds = time.monotonic() - self._started
        self.redraw()

    def header(self) -> Content:
        """Return how long it took."""
        if self._seconds is None:
            text = "thinking"
        else:
            text = f"thought for {max(1, round(self._seconds))} s"
        return Content.styled(text, "$foreground 60% italic")

    def body(self) -> Content:
        """Return the reasoning."""
        return Content.styled(sanitize(self._tail.text().strip()), "$foreground 60%")


class Transcript(VerticalScroll, can_focus=False):
    """Blocks from top to bottom; follows new ones while its end is in view."""

    def __init__(self, hint: Content) -> None:
        super().__init__(id="transcript")
        self._hint = Static(hint, id="hint", markup=False)
        self._answer: Answer | None = None
        self._thinking: Thinking | None = None
        self._calls: dict[str, ToolCall] = {}
        self._timer: Timer | None = None
        self._turn = False
        self.approval: Approval | None = None

    def compose(self) -> ComposeResult:
        """Begin with the hint of the empty state."""
        yield self._hint

    def watch_show_vertical_scrollbar(self, overflows: bool) -> None:
        """Follow the end once there is more than fits; an anchor pushes less than that down."""
        self.anchor(overflows)
        if not overflows:
            self.scroll_home(animate=False)

    async def show(self, event: events.Event) -> None:
        """Render one event."""
        if isinstance(event, events.TextDelta):
            await self._text(event.text)
        elif isinstance(event, events.ThinkingDelta):
            await self._thought(event.text)
        elif isinstance(event, events.ToolOutput):
            if call := self._calls.get(event.id):
                call.output(event)
        else:
            await self._finish_text()
            await self._show_other(event)

    async def _show_other(self, event: events.Event) -> None:
        if isinstance(event, events.TurnStarted):
            self._turn = True
            self._draw_after(_FLUSH_SECONDS)
            if self._hint.is_attached:
                await self._hint.remove()
            await self.add(_prompt(event.prompt))
        elif isinstance(event, events.ToolStarted):
            call = ToolCall(event)
            self._calls[event.id] = call
            await self.add(call)
        elif isinstance(event, events.ToolFinished):
            await self.close_approval()
            if call := self._calls.get(event.id):
                call.finish(event)
        elif isinstance(event, events.ApprovalRequested):
            self.approval = Approval(event)
            await self.add(self.approval)
        elif isinstance(event, events.Notice):
            await self.note(event.text)
        elif isinstance(event, events.Compacted):
            before, after = event.tokens_before, event.tokens_after
            await self.note(f"made room: old results were shortened ({before} to {after} tokens)")
        elif isinstance(event, events.TurnEnded):
            await self._ended(event)

    async def note(self, text: str, kind: str = "") -> None:
        """Add a line for the person; `kind` is empty or `error`."""
        await self.add(Static(sanitize(text), classes=f"note {kind}", markup=False))

    async def clear(self) -> None:
        """Take every block away; the conversation itself stays."""
        await self._finish_text()
        self._calls.clear()
        keep = self.approval
        await self.remove_children([child for child in self.children if child is not keep])

    async def close_approval(self) -> None:
        """Take the question away: it was answered, or nobody waits for an answer any more."""
        approval, self.approval = self.approval, None
        if approval is not None:
            await approval.remove()

    @property
    def at_end(self) -> bool:
        """Whether the newest block is in view."""
        return self.scroll_offset.y + self.size.height >= self.virtual_size.height

    def follow(self) -> None:
        """Go to the end, and stay there when more comes."""
        self.scroll_end(animate=False)

    def open_all(self) -> None:
        """Open every fold, or close them all if all are open."""
        folds = list(self.query(Fold))
        opened = not all(fold.opened for fold in folds)
        for fold in folds:
            fold.open(opened)

    async def add(self, block: Widget) -> None:
        """Append a block."""
        # A question stays last, so that the end of the list shows it.
        await self.mount(block, before=None if block is self.approval else self.approval)
        surplus = len(self.children) - _MOST_BLOCKS
        if surplus > 0:
            await self.remove_children(list(self.children[:surplus]))

    async def flush(self) -> None:
        """Draw what streamed in since the last time."""
        if self._answer is not None:
            await self._answer.flush()
        if self._thinking is not None:
            self._thinking.flush()
        for call in self._calls.values():
            call.flush()

    async def _text(self, text: str) -> None:
        if self._answer is None:
            if not text.strip():
                return
            await self._finish_text()
            self._answer = Answer()
            await self.add(self._answer)
        self._answer.feed(text)

    async def _thought(self, text: str) -> None:
        if self._thinking is None:
            if not text.strip():
                return
            await self._finish_text()
            self._thinking = Thinking()
            await self.add(self._thinking)
        self._thinking.feed(text)

    async def _finish_text(self) -> None:
        """What streamed is complete: something else begins."""
        answer, self._answer = self._answer, None
        thinking, self._thinking = self._thinking, None
        if answer is not None:
            await answer.flush()
        if thinking is not None:
            thinking.finish()

    async def _ended(self, event: events.TurnEnded) -> None:
        self._turn = False
        await self.close_approval()
        for call in self._calls.values():
            if call.running:
                call.stop()
        self._calls.clear()
        if event.reason == "cancelled":
            await self.note("stopped")
        if event.error:
            await self.note(event.error, "error")

    def _draw_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(seconds, self._draw)

    async def _draw(self) -> None:
        started = time.monotonic()
        await self.flush()
        self.call_after_refresh(self._drawn, started)

    def _drawn(self, started: float) -> None:
        # Without a turn nothing is to be drawn, and an idle program should use no processor.
        if self._turn:
            cost = time.monotonic() - started
            self._draw_after(max(_FLUSH_SECONDS, cost / _DRAWING_SHARE))


def _prompt(text: str) -> Static:
    lines = sanitize(text).split("\n")
    if len(lines) > _PROMPT_LINES:
        left_out = len(lines) - _PROMPT_LINES
        lines = [*lines[:_PROMPT_LINES], f"(and {left_out} more lines)"]
    return Static("\n".join(line[:2000] for line in lines), classes="prompt", markup=False)
