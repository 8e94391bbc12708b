"""Talks to a chat-completions server: the resident host on a Unix socket, or any other over TCP.

Turns a request into a server's dialect and its failures into our errors; `answer_stream` reads what
comes back.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from qwenterm.client.answer_stream import (
    ChatEvent,
    Reading,
    chunks,
)
from qwenterm.client.refusals import one_line, refusal
from qwenterm.core.errors import (
    ConnectionLostError,
    UnavailableError,
    UsageError,
)
from qwenterm.core.http import httpx
from qwenterm.core.types import Message


@dataclass(frozen=True)
class ChatRequest:
    """One request; `tools` are OpenAI tool entries, `schema` constrains the answer.

    `allowed_tools` narrows which of the tools may be called, without a change of the prompt;
    servers other than qwenterm's own host are not told, since many refuse it. `values` are all that
    an argument of an allowed tool may be, by tool and name. `prediction` is text
    that the answer probably repeats, `drop_thinking_before` the number of messages whose thinking
    is to be forgotten: for qwenterm's own host too.
    """

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    allowed_tools: Sequence[str] = ()
    values: Mapping[str, Mapping[str, Sequence[str]]] = field(
        default_factory=dict[str, Mapping[str, Sequence[str]]]
    )
    temperature: float = 0.2
    top_p: float = 0.9
    seed: int | None = None
    max_tokens: int = 1024
    thinking: Literal["off", "low", "high"] = "high"
    schema: Mapping[str, Any] | None = None
    prediction: str = ""
    drop_thinking_before: int = 0
    continue_final: bool = False


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
        """`base_url` ends before `/chat/completions`, for example http://localhost:8000/v1.

        Raises `UsageError` for an address, key or proxy setting that cannot be used.
        """
        self.base_url = base_url.rstrip("/")
        self.model = model
        self._extensions = extensions
        self._where = str(socket) if socket else self.base_url
        address = _address(base_url)
        local = socket is not None or _loopback(address.host)
        # Reading the certificates takes 75 ms, and plain HTTP on this machine needs none.
        verify = address.scheme == "https"
        uds = str(socket) if socket else None
        key = api_key.strip()
        if not (key.isascii() and key.isprintable()):
            raise UsageError("the API key has characters that no key has; look at what holds it")
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        transport = httpx.AsyncHTTPTransport(uds=uds, verify=verify) if local else None
        try:
            self._http = httpx.AsyncClient(
                transport=transport,
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=min(timeout, 10)),
                # Proxies are for the network; the socket and loopback must never go through one.
                trust_env=not local,
            )
        except (ImportError, ValueError) as error:
            raise UsageError(f"the proxy settings of the environment: {error}") from None

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        """Yield the events of one answer; closing the iterator cancels it on the server.

        Raises `UnavailableError` (nobody there), `ConnectionLostError` (gone in the middle),
        `ContextFullError`, or `QwentermError` with the server's own message.
        """
        body = json.dumps(self._body(request), ensure_ascii=False)
        reading = Reading()
        try:
            async with self._http.stream(
                "POST",
                f"{self.base_url}/chat/completions",
                # Halves of characters (a file's name, a bad server's text) cannot be sent.
                content=body.encode("utf-8", "replace"),
            ) as response:
                if not response.is_success:
                    location = response.headers.get("location", "")
                    text = await response.aread()
                    raise refusal(response.status_code, text, self._where, location)
                async for chunk in chunks(response):
                    for event in reading.take(chunk):
                        yield event
        except httpx.HTTPError as error:
            # What is lost after the end is the usage at most.
            if not reading.finished:
                raise self._failure(error) from None
        if not reading.finished:
            raise ConnectionLostError(f"{self._where} ended its answer in the middle")
        for event in reading.end():
            yield event

    async def model_names(self) -> list[str]:
        """Return the ids that the server offers; raises `UnavailableError`."""
        try:
            response = await self._http.get(f"{self.base_url}/models")
        except httpx.HTTPError as error:
            raise self._failure(error) from None
        if not response.is_success and response.status_code != 404:
            location = response.headers.get("location", "")
            raise refusal(response.status_code, response.content, self._where, location)
        try:
            entries = cast("list[dict[str, Any]]", response.json()["data"])
            return [str(entry["id"]) for entry in entries]
        except (ValueError, KeyError, TypeError):
            raise UnavailableError(
                f"{self._where} does not list its models; name one with `endpoint.model`, or check "
                "`endpoint.base_url` (most end in /v1)"
            ) from None

    def _failure(self, error: httpx.HTTPError) -> UnavailableError:
        """Return what a failed request means; only a lost connection is worth another try."""
        reason = one_line(str(error)) or "closed"
        if isinstance(error, httpx.ConnectError):
            if self._extensions:
                return ConnectionLostError(f"the host at {self._where} is gone")
            return UnavailableError(
                f"nothing answers at {self._where} ({reason}); start the server there, or check "
                "`endpoint.base_url`"
            )
        if isinstance(error, httpx.TimeoutException):
            hint = "" if self._extensions else " (`endpoint.timeout_seconds`)"
            return UnavailableError(f"{self._where} does not answer in time{hint}")
        return ConnectionLostError(f"{self._where} went away: {reason}")

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
            body["tool_choice"] = self._tool_choice(request)
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None:
            schema = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.thinking == "low":
            body["reasoning_effort"] = "low"
        if request.thinking == "off":
            body["chat_template_kwargs"] = {"enable_thinking": False}
        if request.continue_final:
            body["continue_final_message"] = True
            body["add_generation_prompt"] = False
        if self._extensions:
            body["return_progress"] = True
            if request.drop_thinking_before:
                body["drop_thinking_before"] = request.drop_thinking_before
            if request.prediction:
                body["prediction"] = {"type": "content", "content": request.prediction}
        return body

    def _tool_choice(self, request: ChatRequest) -> Any:
        # "none" allows nothing already, whatever the list says.
        narrowed = self._extensions and request.allowed_tools and request.tool_choice != "none"
        if not narrowed:
            return request.tool_choice
        tools: list[dict[str, Any]] = []
        for name in request.allowed_tools:
            function: dict[str, Any] = {"name": name}
            if name in request.values:
                function["values"] = request.values[name]
            tools.append({"type": "function", "function": function})
        mode = request.tool_choice
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


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


def _address(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
        if not url.host or not 0 < (url.port or 1) < 1 << 16:
            raise ValueError("names no host, or a port that does not exist")
    except (httpx.InvalidURL, ValueError) as error:
        raise UsageError(f"endpoint.base_url {base_url!r}: {error}") from None
    return url


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
