"""A model that says what a test tells it to: for the logic around a model, never for its quality.

Each entry of the script is one answer: a list of chat events, or an exception to raise at that
point. Requests are kept for the test to look at.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence

from qwenterm.client import ChatCall, ChatEvent, ChatFinish, ChatRequest, ChatText, ChatUsage


class ScriptedModel:
    """Answers from a script; `delay` seconds pass between the events of an answer."""

    def __init__(
        self, *answers: Sequence[ChatEvent | Exception], delay: float = 0, small: bool = False
    ) -> None:
        self.small = small
        self.answers = list(answers)
        self.requests: list[ChatRequest] = []
        self.prepared = 0
        self.closed = 0
        self.delay = delay

    async def prepare(self, progress: Callable[[float], None]) -> None:
        self.prepared += 1
        progress(1.0)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        self.requests.append(request)
        if not self.answers:
            raise AssertionError("the model was asked more often than the script says")
        try:
            for event in self.answers.pop(0):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.closed += 1


def text(*pieces: str) -> list[ChatEvent]:
    """One answer in words."""
    return [
        *(ChatText(piece) for piece in pieces),
        ChatUsage(10, 5, 3, 0.1, 0.1),
        ChatFinish("stop"),
    ]


def call(name: str, identifier: str = "call_1", **arguments: object) -> list[ChatEvent]:
    """One answer that is a call."""
    return [
        ChatCall(identifier, name, json.dumps(arguments)),
        ChatUsage(10, 5, 3, 0.1, 0.1),
        ChatFinish("tool_calls"),
    ]
