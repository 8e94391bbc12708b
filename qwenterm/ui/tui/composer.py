"""Where a person types: several lines, a history, and the keys that answer a question."""

from __future__ import annotations

import time
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from qwenterm.ui.render import sanitize
from qwenterm.ui.tui.approval import KEYS

_NEWLINE_KEYS = ("shift+enter", "ctrl+j", "alt+enter")
# A key that comes sooner was meant for the text, not for a question that just appeared.
_READING_SECONDS = 0.4
PLACEHOLDER = "Ask, or say what to do"
ASKING_PLACEHOLDER = "y, a or n; or why not"


class Composer(TextArea):
    """Enter sends; Shift+Enter, Ctrl+J or Alt+Enter makes a new line; Up and Down bring back."""

    ALLOW_MAXIMIZE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "app.page(-1)", show=False),
        Binding("pagedown", "app.page(1)", show=False),
    ]

    class Sent(Message):
        """A message to the model, a command, or the reason of a refusal (`is_reason`)."""

        def __init__(self, text: str, is_reason: bool) -> None:
            super().__init__()
            self.text = text
            self.is_reason = is_reason

    class Answered(Message):
        """One of the keys of `approval.KEYS` was pressed while a question is open."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self) -> None:
        super().__init__(
            id="composer",
            soft_wrap=True,
            tab_behavior="focus",
            show_line_numbers=False,
            highlight_cursor_line=False,
            compact=True,
            placeholder=PLACEHOLDER,
        )
        self.cursor_blink = False
        self._history: list[str] = []
        self._position = 0
        self._unsent = ""
        self._asked_at: float | None = None
        self._draft = False

    def ask(self) -> None:
        """A question is open: y, a and n answer it, other text is the reason of a refusal.

        What was being typed already stays a message.
        """
        self._asked_at = time.monotonic()
        self._draft = bool(self.text)
        self.placeholder = ASKING_PLACEHOLDER

    def asked(self) -> None:
        """No question is open any more."""
        self._asked_at = None
        self._draft = False
        self.placeholder = PLACEHOLDER

    def restore(self, text: str) -> None:
        """Put text back that was not sent, before what is typed now."""
        self.text = f"{text}\n{self.text}" if self.text else text
        self.move_cursor(self.document.end)

    def on_key(self, event: events.Key) -> None:
        """Take the keys that mean something else here than in a text area."""
        if event.key == "enter":
            self._take(event)
            self._send()
        elif event.key in _NEWLINE_KEYS:
            self._take(event)
            self.insert("\n")
        elif self._asked_at is not None and not self.text and event.character in KEYS:
            if time.monotonic() - self._asked_at < _READING_SECONDS:
                self._draft = True
                return
            self._take(event)
            self.post_message(self.Answered(event.character or ""))

    def on_text_area_changed(self) -> None:
        """An emptied draft is no draft: what is typed next may be a reason."""
        if not self.text:
            self._draft = False

    def on_paste(self, event: events.Paste) -> None:
        """Insert pasted text whole; terminals send its line ends as carriage returns."""
        event.stop()
        event.prevent_default()
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        self.replace(sanitize(text), *self.selection, maintain_selection_offset=False)

    def action_cursor_up(self, select: bool = False) -> None:
        """Move up, or from the first line to the message before."""
        if not select and self._row() == 0 and self._position > 0:
            self._recall(self._position - 1)
            return
        super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Move down, or from the last line to the message after."""
        last = self._row() >= self.wrapped_document.height - 1
        if not select and last and self._position < len(self._history):
            self._recall(self._position + 1)
            return
        super().action_cursor_down(select)

    def _row(self) -> int:
        return self.wrapped_document.location_to_offset(self.cursor_location).y

    def _recall(self, position: int) -> None:
        if self._position == len(self._history):
            self._unsent = self.text
        self._position = position
        recalled = [*self._history, self._unsent][position]
        self.text = recalled
        self.move_cursor(self.document.end)

    def _send(self) -> None:
        text = self.text
        if not text.strip():
            return
        is_reason = self._asked_at is not None and not self._draft
        if not is_reason and (not self._history or self._history[-1] != text):
            self._history.append(text)
        self._position = len(self._history)
        self._unsent = ""
        self._draft = False
        self.text = ""
        self.post_message(self.Sent(text, is_reason))

    @staticmethod
    def _take(event: events.Key) -> None:
        event.stop()
        event.prevent_default()
