"""One line that opens to more: the shape of a tool call and of the model's thinking."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static


class Fold(Vertical):
    """A header that a click opens and closes. The body is only made while it is open."""

    def __init__(self) -> None:
        super().__init__(classes="fold")
        self._header = Static(Content(), classes="fold-header", markup=False)
        self._body = Static(Content(), classes="fold-body", markup=False)
        self.opened = False

    def compose(self) -> ComposeResult:
        """Make the header and the empty body."""
        yield self._header
        yield self._body

    def on_mount(self) -> None:
        """Draw for the first time."""
        self.redraw()

    def header(self) -> Content:
        """Return the line that is always there."""
        raise NotImplementedError

    def body(self) -> Content:
        """Return what the line opens to."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Show what changed; what is folded away costs nothing."""
        self._header.update(
            Content.assemble("▾ " if self.opened else "▸ ", self.header()), layout=False
        )
        self._body.display = self.opened
        self.set_class(self.opened, "opened")
        if self.opened:
            self._body.update(self.body())

    def open(self, opened: bool) -> None:
        """Open or close."""
        self.opened = opened
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        """Open or close by mouse."""
        if event.widget is self._header:
            event.stop()
            self.open(not self.opened)
