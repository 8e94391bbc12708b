"""What a turn needs, put together once by `app.build_runtime` and passed in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from qwenterm.agent.approvals import Approvals
from qwenterm.client import ChatEvent, ChatRequest
from qwenterm.config import AgentSettings
from qwenterm.core.types import Message, PermissionMode, Tool
from qwenterm.permissions.places import Places


class Model(Protocol):
    """Whoever answers: the resident host, another server, or a script in tests.

    `small`, known after `prepare`: the model needs guidance to get through a turn.
    """

    small: bool

    async def prepare(self, progress: Callable[[float], None]) -> None:
        """Make the model ready to answer, starting what must be started; `progress` is 0..1.

        Called before a turn's first request and again after a lost connection. Raises
        `UnavailableError`.
        """
        ...

    def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        """Yield one answer's events; raises the errors of `client.ChatClient.stream`."""
        ...


@dataclass
class Runtime:
    """A session: its model, tools, places and mode, and the conversation so far.

    `facts` are lines about the surroundings that change from folder to folder; they go into the
    first user message, never before the tools. `known` holds the files that the model has seen
    whole. `output_chars` bounds what one tool result brings into the prompt. `thinking_from` is the
    number of messages at the last compaction that dropped their thinking.
    """

    model: Model
    tools: Mapping[str, Tool]
    places: Places
    home: Path
    contained: bool
    settings: AgentSettings
    mode: PermissionMode = PermissionMode.ASK
    facts: str = ""
    output_chars: int = 6000
    approvals: Approvals = field(default_factory=Approvals)
    known: set[Path] = field(default_factory=set[Path])
    history: list[Message] = field(default_factory=list[Message])
    thinking_from: int = 0

    @property
    def guided(self) -> bool:
        """Return whether turns are guided: as set, or because the model is small."""
        wanted = self.settings.guidance
        return wanted == "on" or (wanted == "auto" and self.model.small)

    @property
    def workspace(self) -> Path:
        """The folder in which tools work."""
        return self.places.workspace
