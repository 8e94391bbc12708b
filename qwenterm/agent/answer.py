"""One answer of the model, with what can go wrong on the way to it.

A lost connection is retried on a model made ready again, continuing the text that was already
shown; a full context is made room in and tried again. Everything else is an error of the turn.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, cast

from qwenterm.agent.compaction import compact
from qwenterm.agent.runtime import Runtime
from qwenterm.client import (
    ChatCall,
    ChatProgress,
    ChatRequest,
    ChatText,
    ChatThinking,
    ChatUsage,
)
from qwenterm.core.errors import ConnectionLostError, ContextFullError
from qwenterm.core.events import (
    Compacted,
    Event,
    LoadProgress,
    Notice,
    PrefillProgress,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from qwenterm.core.types import Message, ToolCall

_MOST_RETRIES = 2


@dataclass
class Answer:
    """What came so far. `broken` holds calls whose arguments were no JSON object."""

    text: str = ""
    thinking: str = ""
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    broken: list[ChatCall] = field(default_factory=list[ChatCall])
    finish: str = ""
    vetoed: bool = False


def never(_text: str) -> bool:
    """Let every answer come to its end."""
    return False


async def request(
    runtime: Runtime,
    answer: Answer,
    build: Callable[[], ChatRequest],
    veto: Callable[[str], bool] = never,
) -> AsyncGenerator[Event, None]:
    """Fill `answer` and yield the events on the way; `build` is called anew after compaction.

    `veto` sees the text so far and says whether to stop there: `answer.vetoed`.
    """
    lost = 0
    while True:
        try:
            async with aclosing(_attempt(runtime, answer, build(), veto)) as stream:
                async for event in stream:
                    yield event
            return
        except ConnectionLostError as error:
            lost += 1
            if lost > _MOST_RETRIES:
                raise
            yield Notice(f"{error}; trying again")
            answer.calls.clear()
            answer.broken.clear()
            async with aclosing(prepare(runtime)) as stream:
                async for event in stream:
                    yield event
        except ContextFullError:
            before, after = compact(runtime)
            if before == after:
                raise
            yield Compacted(before, after)


async def prepare(runtime: Runtime) -> AsyncGenerator[LoadProgress, None]:
    """Make the model ready and yield its load progress."""
    reports: asyncio.Queue[float] = asyncio.Queue()
    task = asyncio.create_task(_prepared(runtime, reports))
    try:
        while (fraction := await reports.get()) >= 0:
            yield LoadProgress(fraction)
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _prepared(runtime: Runtime, reports: asyncio.Queue[float]) -> None:
    try:
        await runtime.model.prepare(lambda fraction: reports.put_nowait(max(0.0, fraction)))
    finally:
        reports.put_nowait(-1)


async def _attempt(
    runtime: Runtime, answer: Answer, chat: ChatRequest, veto: Callable[[str], bool]
) -> AsyncGenerator[Event, None]:
    if answer.text:
        # The text is on the screen already: go on from there.
        messages = [*chat.messages, Message("assistant", answer.text)]
        chat = replace(chat, messages=messages, continue_final=True, tool_choice="none")
    elif answer.thinking:
        answer.thinking = ""
    stream = runtime.model.stream(chat)
    try:
        async for event in stream:
            if isinstance(event, ChatText):
                answer.text += event.text
                yield TextDelta(event.text)
                if veto(answer.text):
                    answer.vetoed = True
                    return
            elif isinstance(event, ChatThinking):
                answer.thinking += event.text
                yield ThinkingDelta(event.text)
            elif isinstance(event, ChatCall):
                _add_call(answer, event)
            elif isinstance(event, ChatProgress):
                yield PrefillProgress(event.processed, event.total, event.cached)
            elif isinstance(event, ChatUsage):
                yield _usage(event)
            else:
                answer.finish = event.reason
    finally:
        # Closing the stream is what cancels the work on the other side.
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


def _add_call(answer: Answer, call: ChatCall) -> None:
    arguments = decoded(call.arguments)
    # Some servers number calls anew in each answer; ids must be unique in a conversation.
    if arguments is None:
        answer.broken.append(call)
    else:
        answer.calls.append(ToolCall(call.id, call.name, arguments))


def decoded(arguments: str) -> Mapping[str, Any] | None:
    """Return a call's arguments, None if they are not a JSON object."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _usage(event: ChatUsage) -> Usage:
    return Usage(
        event.prompt,
        event.cached,
        event.completion,
        event.prompt_seconds,
        event.completion_seconds,
    )
