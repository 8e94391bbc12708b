"""The nouns of qwenterm as dataclasses: messages, calls, tools, intents, effects, decisions.

Nothing here touches a disk, a process or a library. Values that cross a border (wire, config,
model output) are validated where they cross; inside, these types are trusted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
IntentKind = Literal["read", "write", "exec", "net"]
Action = Literal["allow", "ask", "deny"]
Scope = Literal["once", "always"]


class PermissionMode(str, Enum):
    """How much may happen without a question; the values are those of the command line."""

    ASK = "ask"
    EDITS = "edits"
    AUTO = "auto"
    PLAN = "plan"


class Access(str, Enum):
    """What a sandboxed command may do to the workspace."""

    READ_ONLY = "read-only"
    WORKSPACE = "workspace"


@dataclass(frozen=True)
class ToolCall:
    """One call that the model made; `arguments` is the decoded JSON object."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Message:
    """One entry of a conversation, in the shape of the OpenAI chat format."""

    role: Role
    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True)
class Intent:
    """What a call wants, before it runs: read or write a path, execute a command, reach a host.

    `target` is an absolute path for read and write, the command line for exec, host:port for net.
    """

    kind: IntentKind
    target: str


@dataclass(frozen=True)
class FileChange:
    """One file before and after; None means that it does not exist on that side."""

    path: Path
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class Effect:
    """Changes that a tool proposes and that nobody has applied yet."""

    changes: tuple[FileChange, ...]


@dataclass(frozen=True)
class ToolResult:
    """What a tool run came to.

    `text` goes to the model. `effect` is still to be approved and applied. `blocked_write` says
    that a command ran with the workspace read-only and tried to change it: running it again with
    write access needs its own approval.
    """

    text: str
    is_error: bool = False
    effect: Effect | None = None
    exit_code: int | None = None
    blocked_write: bool = False


@dataclass(frozen=True)
class ToolContext:
    """What a tool may use while it runs.

    `emit` receives live output (already decoded text, in arrival order). `access` is what the
    policy granted to this run's commands. `known` are the files that the model has seen whole;
    tools add to it.
    """

    workspace: Path
    access: Access = Access.READ_ONLY
    emit: Callable[[str], None] = field(default=lambda _text: None)
    known: set[Path] = field(default_factory=set[Path])


@dataclass(frozen=True)
class Tool:
    """A tool is a record.

    `parameters` is the JSON schema of the arguments (an object). `intents` is pure: it names what
    a call wants without doing it. `run` does the work in the way `context` allows; file changes
    come back as an `Effect`. Errors that the model can act on are results with `is_error`.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    intents: Callable[[Mapping[str, Any], Path], tuple[Intent, ...]]
    run: Callable[[Mapping[str, Any], ToolContext], Awaitable[ToolResult]]


@dataclass(frozen=True)
class Ruling:
    """The policy's answer: what to do, the rule that decided, the access granted to commands."""

    action: Action
    rule: str
    access: Access = Access.READ_ONLY


@dataclass(frozen=True)
class Decision:
    """A person's answer to an approval request; `reason` is passed on to the model."""

    allow: bool
    scope: Scope = "once"
    reason: str = ""
