"""A question in the transcript: what would change, why it is asked, and the keys to answer with."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from qwenterm.core.events import ApprovalRequested
from qwenterm.core.types import Decision
from qwenterm.ui.render import sanitize
from qwenterm.ui.tui.difference import coloured

KEYS = {
    "y": Decision(True),
    "a": Decision(True, scope="always"),
    "n": Decision(False),
}


class Approval(Vertical):
    """The diff first, then what would happen and the reason. Whoever owns the keys answers it."""

    def __init__(self, request: ApprovalRequested) -> None:
        super().__init__(classes="approval")
        self.request = request

    def compose(self) -> ComposeResult:
        """Make the parts from top to bottom."""
        if self.request.diff:
            yield Static(coloured(self.request.diff), classes="approval-diff", markup=False)
        yield Static(self._question(), classes="approval-question", markup=False)
        yield Static(_keys(), classes="approval-keys", markup=False)

    def _question(self) -> Content:
        summary = sanitize(self.request.summary)
        reason = sanitize(self.request.reason)
        return Content.assemble((summary, "bold"), (f"\n{reason}", "$foreground 60%"))


def _keys() -> Content:
    key = "bold $text-warning"
    return Content.assemble(
        ("y", key),
        " yes, once   ",
        ("a", key),
        " always   ",
        ("n", key),
        " no   or type why not, and Enter",
    )
