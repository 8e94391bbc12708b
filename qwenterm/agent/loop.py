"""The loop: ask the model, run what it calls, tell it the results, until it answers.

`run_turn` is an async generator of events. Closing or cancelling it stops everything at once and
leaves a conversation that can go on.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from qwenterm.agent.answer import Answer, never, prepare, request
from qwenterm.agent.dispatch import Outcome, dispatch
from qwenterm.agent.existing import path_values
from qwenterm.agent.guidance import CHANGING_TOOLS, EXAMPLE, Guide
from qwenterm.agent.prediction import predicted_text
from qwenterm.agent.prompt import (
    SCHEMA_PROMPT,
    repeated_text,
    system_message,
    tool_definitions,
    user_message,
)
from qwenterm.agent.runtime import Runtime
from qwenterm.client import ChatRequest
from qwenterm.core.errors import (
    EXIT_ANSWERED,
    EXIT_NEEDS_APPROVAL,
    EXIT_NO_ANSWER,
    QwentermError,
)
from qwenterm.core.events import Event, Notice, TurnEnded, TurnStarted
from qwenterm.core.types import Message, PermissionMode, ToolCall

_RESAMPLING_TEMPERATURE = 0.8
_MOST_REPEATS = 2
STOPPED = "(stopped by the user)"


@dataclass
class _Turn:
    """What one turn remembers: calls made since the last change, and how it is going."""

    schema: Mapping[str, Any] | None
    guide: Guide
    steps: int = 0
    seen: set[str] = field(default_factory=set[str])
    repeats: int = 0
    resample: int = 0
    empty: int = 0
    must_answer: bool = False
    denied: bool = False


async def run_turn(
    runtime: Runtime,
    prompt: str,
    *,
    attachment: str = "",
    schema: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Event, None]:
    """Yield the events of one turn, `TurnStarted` to `TurnEnded`.

    `attachment` is input that came with the prompt, marked as data. `schema`: the answer must be
    JSON that satisfies it. Errors end the turn as `TurnEnded`, with the exit status of the
    command-line table in `details["status"]`.
    """
    history = runtime.history
    turn = _Turn(schema, Guide(active=False))
    answer = Answer()
    yield TurnStarted(prompt)
    try:
        async with aclosing(prepare(runtime)) as stream:
            async for event in stream:
                yield event
        turn.guide = Guide(runtime.guided, prompt, bool(attachment))
        facts = "" if history else runtime.facts
        if not history:
            history.append(system_message())
            history.extend(EXAMPLE if runtime.guided else ())
        history.append(user_message(prompt, facts=facts, attachment=attachment))
        for name in turn.guide.named_files(runtime.workspace):
            reading = ToolCall(f"named_{len(history)}", "read", {"path": name})
            async with aclosing(_calls(runtime, turn, Answer(calls=[reading]))) as stream:
                async for event in stream:
                    yield event
        while True:
            answer = Answer()
            async with aclosing(
                request(runtime, answer, lambda: _chat(runtime, turn), _veto(runtime, turn))
            ) as stream:
                async for event in stream:
                    yield event
            turn.steps += 1
            if answer.calls or answer.broken:
                async with aclosing(_calls(runtime, turn, answer)) as stream:
                    async for event in stream:
                        yield event
                continue
            if answer.vetoed or (not _last(runtime, turn) and _sent_back(turn, answer)):
                continue
            history.append(Message("assistant", answer.text, answer.thinking))
            break
        if schema is not None:
            answer = Answer()
            history.append(Message("user", SCHEMA_PROMPT))
            async with aclosing(
                request(runtime, answer, lambda: _schema_chat(runtime, schema))
            ) as stream:
                async for event in stream:
                    yield event
            history.append(Message("assistant", answer.text))
            _check_schema(answer.text, schema)
    except QwentermError as error:
        _close(history, answer)
        yield TurnEnded("error", answer.text, str(error), turn.steps, {"status": error.status})
        return
    except BaseException:
        _close(history, answer)
        raise
    yield _ended(runtime, turn, answer)


def _last(runtime: Runtime, turn: _Turn) -> bool:
    return turn.must_answer or turn.steps >= runtime.settings.max_steps


def _veto(runtime: Runtime, turn: _Turn) -> Callable[[str], bool]:
    """Return what stops an answer in its middle: nobody should wait for the rest of a plan."""
    if _last(runtime, turn):
        return never
    return lambda text: turn.guide.sends_back(text, whole=False)


def _sent_back(turn: _Turn, answer: Answer) -> bool:
    """Tell whether a whole answer does not end the turn."""
    if not answer.text.strip():
        # Nothing at all: sampled anew, a few times.
        turn.empty += 1
        turn.resample = turn.empty
        return turn.empty <= _MOST_REPEATS
    return turn.guide.sends_back(answer.text, whole=True)


def _chat(runtime: Runtime, turn: _Turn) -> ChatRequest:
    settings = runtime.settings
    allowed = _allowed(runtime, turn)
    choice: Literal["auto", "none", "required"] = "auto"
    if _last(runtime, turn) or turn.guide.answers_input:
        choice = "none"
    elif turn.guide.demand:
        choice = "required"
    return ChatRequest(
        messages=list(runtime.history),
        tools=tool_definitions(list(runtime.tools.values())),
        tool_choice=choice,
        allowed_tools=allowed if choice != "none" else (),
        values=path_values(runtime, turn.guide) if choice != "none" else {},
        temperature=_RESAMPLING_TEMPERATURE if turn.resample else settings.temperature,
        top_p=settings.top_p,
        seed=settings.seed + turn.resample + 7 * turn.repeats,
        max_tokens=settings.max_output_tokens,
        thinking=settings.thinking,
        prediction=predicted_text(runtime),
        drop_thinking_before=runtime.thinking_from,
    )


def _allowed(runtime: Runtime, turn: _Turn) -> tuple[str, ...]:
    """Return the tools that may be called now; what the mode refuses anyway is left out."""
    tools = tuple(runtime.tools)
    if runtime.mode is PermissionMode.PLAN:
        tools = tuple(name for name in tools if name not in CHANGING_TOOLS)
    return turn.guide.allowed(tools)


def _schema_chat(runtime: Runtime, schema: Mapping[str, Any]) -> ChatRequest:
    settings = runtime.settings
    return ChatRequest(
        messages=list(runtime.history),
        tools=tool_definitions(list(runtime.tools.values())),
        tool_choice="none",
        drop_thinking_before=runtime.thinking_from,
        temperature=0.0,
        seed=settings.seed,
        max_tokens=settings.max_output_tokens,
        thinking="off",
        schema=schema,
    )


def _check_schema(text: str, schema: Mapping[str, Any]) -> None:
    """Raise `QwentermError` for an answer that a server gave without obeying the schema."""
    import jsonschema  # noqa: PLC0415 - 60 ms that only a schema is worth

    try:
        jsonschema.Draft202012Validator(dict(schema)).validate(json.loads(text))  # pyright: ignore[reportUnknownMemberType]
    except ValueError:
        raise QwentermError("the answer is not JSON, as --schema asks") from None
    except jsonschema.ValidationError as error:
        raise QwentermError(f"the answer does not satisfy the schema: {error.message}") from None


async def _calls(runtime: Runtime, turn: _Turn, answer: Answer) -> AsyncGenerator[Event, None]:
    """Run an answer's calls and add them with their results to the conversation."""
    history = runtime.history
    keys = [_key(call) for call in answer.calls]
    if keys and all(key in turn.seen for key in keys) and not turn.resample:
        # Dropped and sampled anew, hotter and with another seed, before it enters the history.
        turn.resample += 1
        for call in answer.calls:
            turn.guide.repeated(call.name)
        return
    turn.resample = 0
    calls = _with_unique_ids(history, answer.calls)
    broken = [ToolCall(f"broken_{len(history)}", call.name, {}) for call in answer.broken]
    message = Message("assistant", answer.text, answer.thinking, (*calls, *broken))
    history.append(message)
    results = {call.id: "cancelled by the user" for call in message.tool_calls}
    try:
        for call in broken:
            results[call.id] = "the arguments were not a JSON object; write the call again"
        for call, key in zip(calls, keys, strict=True):
            if key in turn.seen:
                turn.repeats += 1
                turn.guide.repeated(call.name)
                turn.must_answer = turn.repeats >= _MOST_REPEATS
                results[call.id] = repeated_text(call.name, last=turn.must_answer)
                yield Notice(f"the model repeated {call.name}; told to go on")
                continue
            outcome, known = Outcome(""), len(runtime.known)
            async with aclosing(dispatch(runtime, call)) as stream:
                async for event in stream:
                    if isinstance(event, Outcome):
                        outcome = event
                    else:
                        yield event
            results[call.id] = outcome.text + turn.guide.after_result(
                call.name,
                str(call.arguments.get("command", "")),
                outcome.text,
                error=outcome.is_error,
                done=outcome.changed,
                denied=outcome.denied,
            )
            turn.denied = turn.denied or outcome.unattended
            if outcome.changed:
                turn.seen.clear()
            if not (outcome.is_error and len(runtime.known) > known):
                # Refused only because the file was not known: now it is, and may be right.
                turn.seen.add(key)
    finally:
        # Also when cancelled: every call has a result, or the template could not go on.
        for call in message.tool_calls:
            history.append(Message("tool", results[call.id], tool_call_id=call.id))


def _ended(runtime: Runtime, turn: _Turn, answer: Answer) -> TurnEnded:
    status, reason, error = EXIT_ANSWERED, "answered", ""
    if turn.denied and not runtime.approvals.attended:
        status, reason = EXIT_NEEDS_APPROVAL, "needs_approval"
        error = "something needed an approval that nobody could give (--permission-mode)"
    elif not answer.text.strip():
        status, reason, error = EXIT_NO_ANSWER, "error", "the model gave no answer"
    elif turn.steps > runtime.settings.max_steps:
        status, reason = EXIT_NO_ANSWER, "step_limit"
        error = f"stopped after {runtime.settings.max_steps} steps (agent.max_steps)"
    elif answer.finish == "length":
        error = "the answer was cut at agent.max_output_tokens"
    details = {"status": status, "repeats": turn.repeats}
    return TurnEnded(reason, answer.text, error, turn.steps, details)


def _close(history: list[Message], answer: Answer) -> None:
    """Leave a conversation that can go on after a turn that broke off."""
    if history and history[-1].role == "user":
        history.append(Message("assistant", answer.text or STOPPED))


def _key(call: ToolCall) -> str:
    return f"{call.name} {json.dumps(call.arguments, sort_keys=True)}"


def _with_unique_ids(history: list[Message], calls: list[ToolCall]) -> list[ToolCall]:
    """Give ids that are unique in the conversation: some servers number anew in each answer."""
    used = {call.id for message in history for call in message.tool_calls}
    unique: list[ToolCall] = []
    for call in calls:
        identifier, number = call.id, 1
        while identifier in used:
            number += 1
            identifier = f"{call.id}-{number}"
        used.add(identifier)
        unique.append(replace(call, id=identifier))
    return unique
