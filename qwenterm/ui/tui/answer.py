"""The model's answer as Markdown while it streams in.

The text is the model's: HTML is shown and not read, character entities stay as they are written
(they could spell control characters), and a link opens nothing by itself.
"""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from textual import on
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownStream

from qwenterm.ui.render import sanitize


def parser() -> MarkdownIt:
    """Return a parser whose output is safe for a terminal."""
    made = MarkdownIt("gfm-like", {"html": False}).disable("entity")
    made.core.ruler.push("controls", _sanitize)
    return made


def _sanitize(state: StateCore) -> None:
    # Linkify decodes percent signs in addresses, after the source was sanitized.
    for token in state.tokens:
        for child in token.children or ():
            child.content = sanitize(child.content)


class Answer(Markdown):
    """One answer; `feed` is cheap, `flush` draws."""

    def __init__(self) -> None:
        super().__init__(parser_factory=parser, open_links=False, classes="answer")
        self._pending: list[str] = []
        self._stream: MarkdownStream | None = None

    def feed(self, text: str) -> None:
        """Take a piece of the answer; it is drawn by the next `flush`."""
        self._pending.append(text)

    async def flush(self) -> None:
        """Draw what came since the last time."""
        if not self._pending:
            return
        text, self._pending = sanitize("".join(self._pending)), []
        if self._stream is None:
            self._stream = Markdown.get_stream(self)
        await self._stream.write(text)

    async def finish(self) -> None:
        """Draw the rest; nothing comes after this."""
        await self.flush()
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None

    @on(Markdown.LinkClicked)
    def copy_link(self, event: Markdown.LinkClicked) -> None:
        """Copy the address: an address that a model wrote is looked at before it is opened."""
        event.stop()
        address = sanitize(event.href)
        self.app.copy_to_clipboard(address)  # pyright: ignore[reportUnknownMemberType]
        self.notify(address, title="Copied", markup=False)
