"""Reads one streamed answer: from bytes to chunks, from chunks to typed events.

Servers differ in how they cut a call into fragments, where they put usage and how they end; that
is settled here, so that nobody after it sees anything but complete calls.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from qwenterm.client.refusals import one_line, server_error
from qwenterm.core.errors import ConnectionLostError, QwentermError, UnavailableError
from qwenterm.core.http import httpx

MAX_EVENT_CHARS = 16 * 1024 * 1024


@dataclass(frozen=True)
class ChatText:
    """New answer text."""

    text: str


@dataclass(frozen=True)
class ChatThinking:
    """New reasoning text."""

    text: str


@dataclass(frozen=True)
class ChatCall:
    """A complete call; `arguments` is what the model wrote, JSON if it did it right."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ChatProgress:
    """Prompt evaluation, if the server tells."""

    processed: int
    total: int
    cached: int


@dataclass(frozen=True)
class ChatUsage:
    """Counts in tokens, times in seconds (0 when the server does not tell)."""

    prompt: int
    cached: int
    completion: int
    prompt_seconds: float
    completion_seconds: float


@dataclass(frozen=True)
class ChatFinish:
    """The end of the answer."""

    reason: str


ChatEvent = ChatText | ChatThinking | ChatCall | ChatProgress | ChatUsage | ChatFinish


async def chunks(response: httpx.Response) -> AsyncIterator[dict[str, Any] | None]:
    """Yield the JSON objects of an answer, None for the mark of its end."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    if kind == "application/json":
        # A server that does not stream: the whole answer at once.
        yield _object((await response.aread()).decode("utf-8", "replace"))
        yield None
        return
    if kind == "text/html":
        raise UnavailableError(
            f"{response.url} is a web page, not a model; check `endpoint.base_url` (most end in "
            "/v1)"
        )
    async for chunk in _server_sent(response.aiter_bytes()):
        yield chunk


async def _server_sent(pieces: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any] | None]:
    """Yield what a server-sent event stream holds, cut anywhere, with any line end."""
    pending = b""
    data: list[str] = []
    async for piece in pieces:
        pending += piece
        if len(pending) > MAX_EVENT_CHARS:
            raise QwentermError("the server sends an endless line")
        *lines, pending = pending.split(b"\n")
        for line in lines:
            text = line.rstrip(b"\r").decode("utf-8", "replace")
            if text.startswith("data:"):
                data.append(text[5:].removeprefix(" "))
            elif not text and data:
                body, data = "\n".join(data), []
                if body.strip() == "[DONE]":
                    yield None
                    return
                yield _object(body)
    if pending.startswith(b"data:"):
        data.append(pending[5:].strip().decode("utf-8", "replace"))
    body = "\n".join(data).strip()
    if body:
        yield None if body == "[DONE]" else _object(body)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise ConnectionLostError(f"the server sent a broken line: {text[:200]!r}") from None
    if not isinstance(value, dict):
        raise QwentermError(f"the server sent something else than an object: {text[:200]!r}")
    return cast("dict[str, Any]", value)


@dataclass
class _PartialCall:
    index: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])


@dataclass
class Reading:
    """What has come of one answer. `finished`: its end was told, so nothing is missing."""

    calls: list[_PartialCall] = field(default_factory=list[_PartialCall])
    usage: ChatUsage | None = None
    reason: str = ""
    finished: bool = False

    def take(self, chunk: Mapping[str, Any] | None) -> list[ChatEvent]:
        """Return the events of one chunk; raises `QwentermError` for an error or nonsense."""
        if chunk is None:
            self.finished = True
            return []
        if chunk.get("error"):
            raise server_error(chunk["error"])
        try:
            return self._events(chunk)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise QwentermError(
                f"the server sent what no answer holds: {one_line(json.dumps(chunk), 200)}"
            ) from None

    def end(self) -> list[ChatEvent]:
        """Return what is told once, when all has come: calls, usage, finish."""
        calls = [
            ChatCall(call.id or f"call_{number}", call.name, "".join(call.arguments) or "{}")
            for number, call in enumerate(self.calls)
        ]
        usage = [self.usage] if self.usage else []
        reason = self.reason or ("tool_calls" if calls else "stop")
        return [*calls, *usage, ChatFinish(reason)]

    def _events(self, chunk: Mapping[str, Any]) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        progress = chunk.get("prompt_progress")
        if progress:
            counts = [int(progress.get(key) or 0) for key in ("processed", "total", "cache")]
            events.append(ChatProgress(*counts))
        for choice in cast("list[dict[str, Any]]", chunk.get("choices") or []):
            delta = cast("dict[str, Any]", choice.get("delta") or choice.get("message") or {})
            # vLLM and SGLang call it `reasoning` or `reasoning_content`, depending on the version.
            thinking = delta.get("reasoning_content") or delta.get("reasoning")
            if thinking:
                events.append(ChatThinking(_whole(thinking)))
            if delta.get("content"):
                events.append(ChatText(_whole(delta["content"])))
            for fragment in cast("list[dict[str, Any]]", delta.get("tool_calls") or []):
                self._collect(fragment)
            if choice.get("finish_reason"):
                self.reason, self.finished = str(choice["finish_reason"]), True
        if chunk.get("usage"):
            # Some servers send it with every chunk, counting up: the last one counts.
            self.usage = _usage(chunk)
        return events

    def _collect(self, fragment: Mapping[str, Any]) -> None:
        function = cast("dict[str, Any]", fragment.get("function") or {})
        identifier, name = str(fragment.get("id") or ""), _whole(function.get("name") or "")
        index = fragment.get("index")
        same = [call for call in self.calls if index is None or call.index == index]
        call = same[-1] if same else None
        # Without an index a name begins a new call; some servers give every call the index 0.
        other = call is not None and (
            index is None or bool(identifier and call.id and identifier != call.id)
        )
        if call is None or (other and name):
            call = _PartialCall(len(self.calls) if index is None else int(index))
            self.calls.append(call)
        call.id = identifier or call.id
        # Some servers repeat the whole name with every fragment, some split it.
        if name and name != call.name:
            call.name += name
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            call.arguments.append(json.dumps(arguments))
        elif arguments:
            call.arguments.append(_whole(arguments))


def _whole(value: object) -> str:
    """Return text without halves of characters, which JSON can carry and nothing can print."""
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _usage(chunk: Mapping[str, Any]) -> ChatUsage:
    usage = cast("dict[str, Any]", chunk["usage"])
    timings = cast("dict[str, Any]", chunk.get("timings") or {})
    details = cast("dict[str, Any]", usage.get("prompt_tokens_details") or {})
    return ChatUsage(
        int(usage.get("prompt_tokens") or 0),
        int(details.get("cached_tokens") or 0),
        int(usage.get("completion_tokens") or 0),
        float(timings.get("prompt_ms") or 0) / 1000,
        float(timings.get("predicted_ms") or 0) / 1000,
    )
