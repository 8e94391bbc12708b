"""The model's answer as Markdown while it streams in.

The text is the model's: HTML is shown and not read, character entities stay as they are written
(they could spell control characters), and a link opens nothing by itself.
"""

from __future__ import annotations

import asyncio

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from textual import on
from textual.widgets import Markdown

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
        # Two appends at once would both begin at the same block, and show it twice.
        self._drawing = asyncio.Lock()

    def feed(self, text: str) -> None:
        """Take a piece of the answer; it is drawn by the next `flush`."""
        self._pending.append(text)

    async def flush(self) -> None:
        """Draw what came since the last time; cancelling does not leave half of it."""
        async with self._drawing:
            if self._pending:
                text, self._pending = sanitize("".join(self._pending)), []
                await asyncio.shield(self.append(text))

    @on(Markdown.LinkClicked)
    def copy_link(self, event: Markdown.LinkClicked) -> None:
        """Copy the address: an address that a model wrote is looked at before it is opened."""
        event.stop()
        address = sanitize(event.href)
        self.app.copy_to_clipboard(address)  # pyright: ignore[reportUnknownMemberType]
        self.notify(address, title="Copied", markup=False)
