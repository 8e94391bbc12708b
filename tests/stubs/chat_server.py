"""A server on loopback that says what a test tells it to, over real HTTP and server-sent events.

It runs in a thread of its own, so that tests can talk to it from their event loop and from other
processes alike. Each chat request takes the next reply of the script; requests are kept.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

EVENTS = "text/event-stream"
# Steps of a reply besides bytes: break the connection off; wait until the client has gone.
DROP: Literal["drop"] = "drop"
HANG: Literal["hang"] = "hang"
Piece = bytes | Literal["drop", "hang"]


@dataclass(frozen=True)
class Reply:
    """One answer. `chunked` off: the end of the connection is the end of the body."""

    pieces: Sequence[Piece]
    status: int = 200
    kind: str = EVENTS
    chunked: bool = True
    headers: str = ""


@dataclass(frozen=True)
class Request:
    """What a client sent; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


def event(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(finish: str | None = None, **fields: object) -> bytes:
    """A chunk with one choice."""
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


def usage(prompt: int = 12, cached: int = 8, completion: int = 3) -> bytes:
    """The chunk with the counts, as it comes last."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return event(
        {"choices": [], "usage": {**counts, "prompt_tokens_details": {"cached_tokens": cached}}}
    )


DONE = b"data: [DONE]\n\n"


def end(reason: str = "stop") -> list[bytes]:
    """How an answer ends: finish reason, usage, mark."""
    return [delta(reason), usage(), DONE]


def said(*texts: str) -> Reply:
    """An answer in words, one chunk for each piece."""
    return Reply([delta(role="assistant"), *(delta(content=text) for text in texts), *end()])


def called(name: str, identifier: str = "call_1", **arguments: object) -> Reply:
    """A call, cut as OpenAI-compatible servers cut it: the name first, then arguments in pieces."""
    text = json.dumps(arguments)
    pieces = [fragment(0, id=identifier, type="function", function={"name": name, "arguments": ""})]
    pieces += [
        fragment(0, function={"arguments": text[start : start + 5]})
        for start in range(0, len(text), 5)
    ]
    return Reply([*pieces, *end("tool_calls")])


def fragment(index: int | None, **fields: object) -> bytes:
    """A chunk with a part of a call."""
    part = fields if index is None else {"index": index, **fields}
    return delta(tool_calls=[part])


def refused(status: int, body: str | dict[str, object]) -> Reply:
    """An error answer: a dict as JSON, text as a web page."""
    if isinstance(body, str):
        return Reply([body.encode()], status, "text/html")
    return Reply([json.dumps(body).encode()], status, "application/json")


class ChatServer:
    """Use as a context manager; `url` is what goes into `--base-url`."""

    def __init__(
        self, *replies: Reply, models: Reply | None = None, socket: Path | None = None
    ) -> None:
        self.replies = list(replies)
        self.requests: list[Request] = []
        # Set when a reply has come to HANG, and when the client has gone away there.
        self.hanging = threading.Event()
        self.hung_up = threading.Event()
        listed = json.dumps({"data": [{"id": "scripted"}]}).encode()
        self._models = models or Reply([listed], kind="application/json")
        self._socket = socket
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.AbstractServer | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self.url = "http://host/v1"

    @property
    def chats(self) -> list[dict[str, Any]]:
        """The bodies of the chat requests."""
        return [request.body for request in self.requests if request.method == "POST"]

    def __enter__(self) -> ChatServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(5)
        return self

    def __exit__(self, *_error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _start(self) -> None:
        if self._socket:
            self._server = await asyncio.start_unix_server(self._accept, self._socket)
            return
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for talk in list(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            self._talks.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])
        }
        data = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append(Request(method, path, headers, json.loads(data) if data else None))
        reply = self._reply(method, path)
        framing = "Transfer-Encoding: chunked\r\n" if reply.chunked else ""
        writer.write(
            f"HTTP/1.1 {reply.status} Scripted\r\nContent-Type: {reply.kind}\r\n"
            f"{framing}{reply.headers}Connection: close\r\n\r\n".encode()
        )
        for piece in reply.pieces:
            if piece == DROP:
                # What was written before it still arrives.
                await writer.drain()
                return
            if piece == HANG:
                await writer.drain()
                self.hanging.set()
                await reader.read()
                self.hung_up.set()
                return
            assert isinstance(piece, bytes)
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if reply.chunked else piece)
            await writer.drain()
        if reply.chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _reply(self, method: str, path: str) -> Reply:
        if (method, path) == ("GET", "/v1/models"):
            return self._models
        if (method, path) == ("POST", "/v1/chat/completions") and self.replies:
            return self.replies.pop(0)
        return refused(500, f"<h1>the script has no answer to {method} {path}</h1>")
