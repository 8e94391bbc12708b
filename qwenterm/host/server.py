"""The HTTP face of the host: OpenAI's chat completions, health, and an admin path.

Only translates between HTTP and `ResidentModel`. The wire is described in docs/wire.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from qwenterm import __version__
from qwenterm.core.errors import ContextFullError, QwentermError, UnavailableError, UsageError
from qwenterm.host.deltas import Call, Delta, Finished, Progress, Text, Thinking, call_entry, usage
from qwenterm.host.requests import CompletionRequest, InvalidRequestError, LoadRequest
from qwenterm.host.resident import ResidentModel

MAX_BODY_BYTES = 64 * 1024 * 1024
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def build_app(
    slot: ResidentModel, stop: Callable[[], None], *, admin: bool, guard: bool
) -> ASGIApp:
    """Return the ASGI application.

    `stop` ends the process after the current answer. `admin` adds the paths that change state;
    they belong on the Unix socket only. `guard` refuses requests that a web page could have made:
    a browser on this machine can reach loopback ports too.
    """
    face = _Face(slot, stop)
    routes = [
        Route("/v1/chat/completions", face.chat, methods=["POST"]),
        Route("/v1/models", face.models),
        Route("/health", face.health),
    ]
    if admin:
        routes += [
            Route("/admin/status", face.status),
            Route("/admin/load", face.load, methods=["POST"]),
            Route("/admin/unload", face.unload, methods=["POST"]),
            Route("/admin/stop", face.stop, methods=["POST"]),
        ]
    app: ASGIApp = Starlette(routes=routes)
    return _OnlyLoopbackNames(app) if guard else app


class _OnlyLoopbackNames:
    """Refuses foreign Host and Origin headers (DNS rebinding, cross-site requests)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = urlsplit("//" + headers.get("host", "")).hostname
            origin = headers.get("origin", "")
            if host not in _LOOPBACK or (origin and urlsplit(origin).hostname not in _LOOPBACK):
                refusal = _error("only local programs may use this server", "forbidden", 403)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Face:
    """The handlers; they share the slot."""

    def __init__(self, slot: ResidentModel, stop: Callable[[], None]) -> None:
        self._slot = slot
        self._stop = stop

    @property
    def _name(self) -> str:
        return Path(self._slot.wanted.path).stem if self._slot.wanted else ""

    async def health(self, _request: Request) -> Response:
        status = self._slot.status
        if status.state == "ready":
            return JSONResponse({"status": "ok"})
        body: dict[str, Any] = {"status": status.state}
        if status.state == "loading":
            body["progress"] = status.progress
        if status.state == "error":
            body["message"] = status.message
        return JSONResponse(body, 503)

    async def models(self, _request: Request) -> Response:
        status = self._slot.status
        meta = {"n_ctx": status.n_ctx, "n_params": status.n_params, "size": status.size}
        entry = {"id": self._name, "object": "model", "owned_by": "qwenterm", "meta": meta}
        return JSONResponse({"object": "list", "data": [entry] if self._name else []})

    async def status(self, _request: Request) -> Response:
        slot, status = self._slot, self._slot.status
        return JSONResponse(
            {
                "version": __version__,
                "pid": os.getpid(),
                "state": status.state,
                "progress": status.progress,
                "message": status.message,
                "model": self._name,
                "path": slot.wanted.path if slot.wanted else "",
                "n_ctx": status.n_ctx,
                "gpu": status.gpu,
                "busy": slot.pending > 0,
                "waiting": max(0, slot.pending - 1),
                "answered": slot.answered,
                "idle_seconds": round(slot.idle_seconds, 1),
                "load_seconds": status.load_seconds,
                "memory_bytes": slot.memory_bytes,
                "evaluated_tokens": slot.evaluated_tokens,
                "cache_bytes": slot.cache_bytes,
            }
        )

    async def load(self, request: Request) -> Response:
        try:
            wanted = LoadRequest.model_validate_json(await _body(request))
        except ValidationError as error:
            return _error(_first(error), "invalid_request_error", 400)
        self._slot.load(wanted)
        return JSONResponse({"state": self._slot.status.state}, 202)

    async def unload(self, _request: Request) -> Response:
        self._slot.unload()
        return JSONResponse({"state": "empty"})

    async def stop(self, _request: Request) -> Response:
        self._stop()
        return JSONResponse({"state": "stopping"})

    async def chat(self, request: Request) -> Response:
        try:
            wanted = CompletionRequest.model_validate_json(await _body(request))
        except ValidationError as error:
            return _error(_first(error), "invalid_request_error", 400)
        except ValueError as error:
            return _error(str(error), "invalid_request_error", 413)
        deltas = self._slot.complete(wanted)
        head = {
            "id": f"chatcmpl-{os.urandom(8).hex()}",
            "created": int(time.time()),
            "model": self._name,
        }
        # The first delta comes once the prompt is known to be good, so errors get a status code.
        try:
            first = await _unless_gone(request, anext(deltas, None))
        except Exception as error:
            await deltas.aclose()
            return _failure(error)
        if wanted.stream:
            chunks = _stream(wanted, head, first, deltas)
            return StreamingResponse(chunks, media_type="text/event-stream")
        try:
            return await _unless_gone(request, _whole(head, first, deltas))
        except Exception as error:
            return _failure(error)


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the request is larger than {MAX_BODY_BYTES} bytes")
    return body


async def _unless_gone(request: Request, work: Any) -> Any:
    """Await `work`, but cancel it as soon as the client has hung up."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=0.25)
            if not task.done() and await request.is_disconnected():
                raise ConnectionResetError("the client hung up")
        return task.result()
    finally:
        task.cancel()


async def _whole(
    head: Mapping[str, Any], first: Delta | None, deltas: AsyncGenerator[Delta, None]
) -> Response:
    text: list[str] = []
    thinking: list[str] = []
    calls: list[dict[str, Any]] = []
    end: Finished | None = None
    async for delta in _chain(first, deltas):
        if isinstance(delta, Text):
            text.append(delta.text)
        elif isinstance(delta, Thinking):
            thinking.append(delta.text)
        elif isinstance(delta, Call):
            calls.append(call_entry(delta))
        elif isinstance(delta, Finished):
            end = delta
    if end is None:
        raise QwentermError("the engine stopped without an answer")
    message: dict[str, Any] = {"role": "assistant", "content": "".join(text)}
    if thinking:
        message["reasoning_content"] = "".join(thinking)
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": end.reason}
    return JSONResponse({**head, "object": "chat.completion", "choices": [choice], **usage(end)})


async def _stream(
    wanted: CompletionRequest,
    head: Mapping[str, Any],
    first: Delta | None,
    deltas: AsyncGenerator[Delta, None],
) -> AsyncIterator[str]:
    base = {**head, "object": "chat.completion.chunk"}

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _sse({**base, "choices": [choice]})

    calls = 0
    yield chunk({"role": "assistant", "content": ""})
    try:
        async for delta in _chain(first, deltas):
            if isinstance(delta, Progress):
                if wanted.return_progress:
                    yield _sse({**base, "choices": [], "prompt_progress": _progress(delta)})
            elif isinstance(delta, Text):
                yield chunk({"content": delta.text})
            elif isinstance(delta, Thinking):
                yield chunk({"reasoning_content": delta.text})
            elif isinstance(delta, Call):
                yield chunk({"tool_calls": [{"index": calls, **call_entry(delta)}]})
                calls += 1
            else:
                yield chunk({}, delta.reason)
                if wanted.stream_options.include_usage:
                    yield _sse({**base, "choices": [], **usage(delta)})
    except Exception as error:
        yield _sse(_error_body(error))
        return
    yield "data: [DONE]\n\n"


async def _chain(first: Delta | None, rest: AsyncGenerator[Delta, None]) -> AsyncIterator[Delta]:
    # `aclosing` makes a client that hangs up cancel the engine at once, not at garbage collection.
    async with aclosing(rest) as deltas:
        if first is not None:
            yield first
        async for delta in deltas:
            yield delta


def _progress(delta: Progress) -> dict[str, Any]:
    return {
        "total": delta.total,
        "cache": delta.cached,
        "processed": delta.processed,
        "time_ms": round(delta.milliseconds, 1),
    }


def _sse(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _first(error: ValidationError) -> str:
    """Return the first problem, by field."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    return f"{field}: {problem['msg']}" if field else str(problem["msg"])


def _kind(error: Exception) -> tuple[str, int]:
    if isinstance(error, ContextFullError):
        return "context_length_exceeded", 400
    if isinstance(error, UnavailableError):
        return "unavailable", 503
    if isinstance(error, (UsageError, InvalidRequestError)):
        return "invalid_request_error", 400
    return "server_error", 500


def _error_body(error: Exception) -> dict[str, Any]:
    kind, code = _kind(error)
    return {"error": {"message": str(error), "type": kind, "code": code}}


def _failure(error: Exception) -> Response:
    kind, code = _kind(error)
    return _error(str(error), kind, code)


def _error(message: str, kind: str, code: int) -> Response:
    return JSONResponse({"error": {"message": message, "type": kind, "code": code}}, code)
