"""The pieces that a completion is made of, and their form on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

_APART = 0.08  # seconds: a dozen times a second is smooth enough to read

Finish = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class Progress:
    """Prompt evaluation."""

    processed: int
    total: int
    cached: int
    milliseconds: float


@dataclass(frozen=True)
class Text:
    """New answer text."""

    text: str


@dataclass(frozen=True)
class Thinking:
    """New reasoning text."""

    text: str


@dataclass(frozen=True)
class Call:
    """A complete call; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Finished:
    """The end, with counts of tokens and milliseconds."""

    reason: Finish
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prompt_ms: float
    completion_ms: float
    drafted: int = 0
    accepted: int = 0


Delta = Progress | Text | Thinking | Call | Finished


def usage(end: Finished) -> dict[str, Any]:
    """Return the `usage` and `timings` objects of an answer, as two keys."""
    evaluated = end.prompt_tokens - end.cached_tokens
    return {
        "usage": {
            "prompt_tokens": end.prompt_tokens,
            "completion_tokens": end.completion_tokens,
            "total_tokens": end.prompt_tokens + end.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": end.cached_tokens},
        },
        "timings": {
            "cache_n": end.cached_tokens,
            "prompt_n": evaluated,
            "prompt_ms": round(end.prompt_ms, 3),
            "predicted_n": end.completion_tokens,
            "predicted_ms": round(end.completion_ms, 3),
            "draft_n": end.drafted,
            "draft_n_accepted": end.accepted,
        },
    }


def call_entry(call: Call) -> dict[str, Any]:
    """Return a call as an entry of `tool_calls`."""
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


class Joined:
    """Hands on deltas, with text that comes in quick succession joined to one.

    Each delta wakes the HTTP side, which takes its time from the cores that compute.
    """

    def __init__(self, put: Callable[[Delta | BaseException | None], None]) -> None:
        self._put = put
        self._held: Text | Thinking | None = None
        self._last = 0.0

    def put(self, item: Delta | BaseException | None) -> None:
        """Take a delta, an error, or None for the end."""
        held = self._held
        if held is not None and type(item) is type(held) and isinstance(item, (Text, Thinking)):
            item = type(held)(held.text + item.text)
        elif held is not None:
            self._put(held)
        self._held = None
        now = time.monotonic()
        if isinstance(item, (Text, Thinking)) and now - self._last < _APART:
            self._held = item
            return
        if isinstance(item, (Text, Thinking)):
            self._last = now
        self._put(item)
