"""Questions to a person and their answers, by id. With nobody there to answer, the answer is no."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from qwenterm.core.types import Decision

NOBODY = Decision(False, reason="nobody is there to approve it")


@dataclass
class Approvals:
    """Open questions and what was answered with "always" in this session.

    `attended` says whether a front end is there that shows questions to a person. `refused` counts
    the questions that nobody could answer.
    """

    attended: bool = False
    refused: int = 0
    _open: dict[str, asyncio.Future[Decision]] = field(
        default_factory=dict[str, "asyncio.Future[Decision]"]
    )
    _always: set[str] = field(default_factory=set[str])

    def remembered(self, key: str) -> bool:
        """Tell whether a person said "always" to this kind of question."""
        return key in self._always

    def open(self, identifier: str) -> None:
        """Register a question before it is shown, so that an early answer is not lost."""
        self._open[identifier] = asyncio.get_running_loop().create_future()

    def answer(self, identifier: str, decision: Decision) -> None:
        """Answer a question; answers to unknown or closed ones are ignored."""
        future = self._open.get(identifier)
        if future is not None and not future.done():
            future.set_result(decision)

    async def wait(self, identifier: str, key: str) -> Decision:
        """Return the answer to an open question; `key` is what "always" remembers."""
        future = self._open[identifier]
        try:
            if not self.attended and not future.done():
                self.refused += 1
                return NOBODY
            decision = await future
        finally:
            del self._open[identifier]
        if decision.allow and decision.scope == "always":
            self._always.add(key)
        return decision
