"""Talks to a chat-completions server: the resident host on a Unix socket, or any other over TCP.

Turns a request into typed events. Servers differ in how they cut a streamed call into fragments;
that is settled here, so that the agent sees complete calls only.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import httpx

from qwenterm.core.errors import (
    ConnectionLostError,
    ContextFullError,
    QwentermError,
    UnavailableError,
)
from qwenterm.core.types import Message

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


@dataclass(frozen=True)
class ChatRequest:
    """One request; `tools` are OpenAI tool entries, `schema` constrains the answer."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    temperature: float = 0.2
    top_p: float = 0.9
    seed: int | None = None
    max_tokens: int = 1024
    thinking: bool = True
    schema: Mapping[str, Any] | None = None
    continue_final: bool = False


@dataclass
class _PartialCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])


class ChatClient:
    """A connection to one server. `extensions`: it is qwenterm's own host."""

    def __init__(
        self,
        base_url: str,
        *,
        socket: Path | None = None,
        model: str = "",
        api_key: str = "",
        timeout: float = 600,
        extensions: bool = False,
    ) -> None:
        """`base_url` ends before `/chat/completions`, for example http://localhost:8000/v1."""
        self.base_url = base_url.rstrip("/")
        self.model = model
        self._extensions = extensions
        self._where = str(socket) if socket else self.base_url
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # Proxies are for the network; the socket and loopback must never go through one.
        transport = httpx.AsyncHTTPTransport(uds=str(socket)) if socket else None
        self._http = httpx.AsyncClient(
            transport=transport,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=10),
            trust_env=socket is None,
        )

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        """Yield the events of one answer; closing the iterator cancels it on the server.

        Raises `UnavailableError` (nobody there), `ConnectionLostError` (gone in the middle),
        `ContextFullError`, or `QwentermError` with the server's own message.
        """
        calls: dict[int, _PartialCall] = {}
        started = finished = False
        try:
            async with self._http.stream(
                "POST", f"{self.base_url}/chat/completions", json=self._body(request)
            ) as response:
                if response.status_code >= 400:
                    raise _refusal(response.status_code, await response.aread(), self._where)
                async for chunk in _server_sent(response.aiter_bytes()):
                    started = True
                    for event in _events(chunk, calls):
                        if isinstance(event, ChatFinish):
                            finished = True
                            for call in _complete(calls):
                                yield call
                        yield event
        except httpx.ConnectError:
            raise ConnectionLostError(
                f"nothing answers at {self._where}; start the server there, or check "
                "`endpoint.base_url`"
            ) from None
        except httpx.TimeoutException:
            raise UnavailableError(f"{self._where} does not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionLostError(f"{self._where} went away: {error or 'closed'}") from None
        if not finished:
            if calls or not started:
                raise ConnectionLostError(f"{self._where} ended its answer in the middle")
            yield ChatFinish("stop")

    async def model_names(self) -> list[str]:
        """Return the ids that the server offers; raises `UnavailableError`."""
        try:
            response = await self._http.get(f"{self.base_url}/models")
            response.raise_for_status()
            entries = cast("list[dict[str, Any]]", response.json()["data"])
            return [str(entry["id"]) for entry in entries]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise UnavailableError(f"{self._where}: no list of models: {error}") from None

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [to_wire(message) for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": request.max_tokens,
        }
        if request.tools:
            body["tools"] = list(request.tools)
            body["tool_choice"] = request.tool_choice
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None:
            schema = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if not request.thinking:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        if request.continue_final:
            body["continue_final_message"] = True
            body["add_generation_prompt"] = False
        if self._extensions:
            body["return_progress"] = True
        return body


def to_wire(message: Message) -> dict[str, Any]:
    """Return a message as OpenAI's dialect writes it."""
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking:
        wire["reasoning_content"] = message.thinking
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
                },
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


async def _server_sent(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON objects of a server-sent event stream, cut anywhere, with any line end."""
    pending = b""
    data: list[str] = []
    async for chunk in chunks:
        pending += chunk
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
                    return
                yield _object(body)
    if pending.startswith(b"data:"):
        data.append(pending[5:].strip().decode("utf-8", "replace"))
    body = "\n".join(data).strip()
    if body and body != "[DONE]":
        yield _object(body)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise ConnectionLostError(f"the server sent a broken line: {text[:200]!r}") from None
    if not isinstance(value, dict):
        raise QwentermError(f"the server sent something else than an object: {text[:200]!r}")
    return cast("dict[str, Any]", value)


def _events(chunk: Mapping[str, Any], calls: dict[int, _PartialCall]) -> list[ChatEvent]:
    if chunk.get("error"):
        raise _server_error(chunk["error"])
    events: list[ChatEvent] = []
    progress = chunk.get("prompt_progress")
    if isinstance(progress, dict):
        p = cast("dict[str, Any]", progress)
        events.append(
            ChatProgress(int(p.get("processed", 0)), int(p.get("total", 0)), int(p.get("cache", 0)))
        )
    for choice in cast("list[dict[str, Any]]", chunk.get("choices") or []):
        delta = cast("dict[str, Any]", choice.get("delta") or {})
        # vLLM and SGLang call it `reasoning` or `reasoning_content`, depending on the version.
        thinking = delta.get("reasoning_content") or delta.get("reasoning")
        if thinking:
            events.append(ChatThinking(str(thinking)))
        if delta.get("content"):
            events.append(ChatText(str(delta["content"])))
        for fragment in cast("list[dict[str, Any]]", delta.get("tool_calls") or []):
            _collect(fragment, calls)
        if choice.get("finish_reason"):
            events.append(ChatFinish(str(choice["finish_reason"])))
    if isinstance(chunk.get("usage"), dict):
        events.append(_usage(chunk))
    return events


def _collect(fragment: Mapping[str, Any], calls: dict[int, _PartialCall]) -> None:
    index = fragment.get("index")
    function = cast("dict[str, Any]", fragment.get("function") or {})
    if not isinstance(index, int):
        # Without an index, a name begins a new call and anything else continues the last.
        index = len(calls) if function.get("name") or not calls else max(calls)
    call = calls.setdefault(index, _PartialCall())
    call.id = str(fragment.get("id") or call.id)
    name = str(function.get("name") or "")
    # Some servers repeat the whole name with every fragment, some split it.
    if name and name != call.name:
        call.name += name
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        call.arguments.append(json.dumps(arguments))
    elif arguments:
        call.arguments.append(str(arguments))


def _complete(calls: dict[int, _PartialCall]) -> list[ChatCall]:
    complete = [
        ChatCall(call.id or f"call_{index}", call.name, "".join(call.arguments) or "{}")
        for index, call in sorted(calls.items())
    ]
    calls.clear()
    return complete


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


def _refusal(status: int, body: bytes, where: str) -> QwentermError:
    text = body.decode("utf-8", "replace")
    try:
        error: Any = json.loads(text).get("error", text)
    except (ValueError, AttributeError):
        error = text
    if status in (401, 403):
        return UnavailableError(f"{where} refuses the key (HTTP {status}): {str(error)[:300]}")
    if status == 404:
        return UnavailableError(f"{where} has no such path or model: {str(error)[:300]}")
    return _server_error(error, status)


def _server_error(error: Any, status: int = 0) -> QwentermError:
    fields = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
    message = str(fields.get("message") or cast("object", error))[:1000]
    kind = f"{fields.get('type', '')} {fields.get('code', '')}"
    lowered = message.lower()
    if "context_length" in kind or "context length" in lowered or "exceed_context" in kind:
        return ContextFullError(message)
    if "unavailable" in kind or status in (502, 503, 504):
        return UnavailableError(message)
    return QwentermError(f"the server reports an error: {message}")
