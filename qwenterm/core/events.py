"""The events that a turn produces, and their JSON form.

Every front end renders these and nothing else. The JSON form is one object with a `type` key in
snake case; it is the line format of `--output-format stream-json`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EndReason = Literal["answered", "step_limit", "cancelled", "error", "needs_approval", "repeated"]


@dataclass(frozen=True)
class TurnStarted:
    """A turn begins with this prompt."""

    prompt: str


@dataclass(frozen=True)
class LoadProgress:
    """The host is loading the model; `fraction` is 0..1."""

    fraction: float
    model: str = ""


@dataclass(frozen=True)
class PrefillProgress:
    """Prompt evaluation: `processed` of `total` tokens are done, `cached` of them were reused."""

    processed: int
    total: int
    cached: int


@dataclass(frozen=True)
class TextDelta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class ThinkingDelta:
    """A piece of the model's reasoning."""

    text: str


@dataclass(frozen=True)
class ToolStarted:
    """A validated call is about to be decided on and run."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class ApprovalRequested:
    """Somebody must say yes or no: `runtime.approvals.answer(id, Decision)`.

    `diff` is a unified diff of the effect, empty when there is nothing to show beforehand.
    """

    id: str
    call_id: str
    name: str
    summary: str
    reason: str
    diff: str = ""


@dataclass(frozen=True)
class ToolOutput:
    """Live output of a running tool."""

    id: str
    text: str


@dataclass(frozen=True)
class ToolFinished:
    """The result as the model will see it; `diff` is what was applied."""

    id: str
    name: str
    text: str
    is_error: bool = False
    exit_code: int | None = None
    diff: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Compacted:
    """Old parts of the conversation were replaced to make room."""

    tokens_before: int
    tokens_after: int


@dataclass(frozen=True)
class Notice:
    """One line for the person, not for the model (a retry, a weaker sandbox)."""

    text: str


@dataclass(frozen=True)
class Usage:
    """Tokens and speed of one request to the model; `cached` prompt tokens were not evaluated."""

    prompt: int
    cached: int
    completion: int
    prompt_seconds: float = 0.0
    completion_seconds: float = 0.0


@dataclass(frozen=True)
class TurnEnded:
    """The turn is over. `answer` is the whole final text; `error` is one line, empty if none."""

    reason: EndReason
    answer: str = ""
    error: str = ""
    steps: int = 0
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


Event = (
    TurnStarted
    | LoadProgress
    | PrefillProgress
    | TextDelta
    | ThinkingDelta
    | ToolStarted
    | ApprovalRequested
    | ToolOutput
    | ToolFinished
    | Compacted
    | Notice
    | Usage
    | TurnEnded
)

EVENT_TYPES: Mapping[str, type[Any]] = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower(): cls
    for cls in (
        TurnStarted,
        LoadProgress,
        PrefillProgress,
        TextDelta,
        ThinkingDelta,
        ToolStarted,
        ApprovalRequested,
        ToolOutput,
        ToolFinished,
        Compacted,
        Notice,
        Usage,
        TurnEnded,
    )
}
_NAMES: Mapping[type[Any], str] = {cls: name for name, cls in EVENT_TYPES.items()}


def to_json(event: Event) -> str:
    """Return the event as one line of JSON, without a newline inside or at the end."""
    body = {"type": _NAMES[type(event)], **dataclasses.asdict(event)}
    return json.dumps(body, ensure_ascii=False)


def from_json(line: str) -> Event:
    """Read back what `to_json` wrote; raises ValueError that names an unknown type or field."""
    body = json.loads(line)
    name = body.pop("type", None)
    cls = EVENT_TYPES.get(name)
    if cls is None:
        raise ValueError(f"unknown event type {name!r}")
    try:
        event: Event = cls(**body)
    except TypeError as error:
        raise ValueError(f"event {name!r}: {error}") from None
    return event
