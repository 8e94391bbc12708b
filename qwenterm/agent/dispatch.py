"""Runs one call: validate, ask the policy, run, get the effect approved, apply it, cut the result.

The only place where the policy is asked and where an effect is applied.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from qwenterm.agent.prompt import clip
from qwenterm.agent.runtime import Runtime
from qwenterm.core.diff import unified
from qwenterm.core.errors import QwentermError
from qwenterm.core.events import ApprovalRequested, Event, ToolFinished, ToolOutput, ToolStarted
from qwenterm.core.types import (
    Access,
    Decision,
    Effect,
    Intent,
    PermissionMode,
    Ruling,
    Tool,
    ToolCall,
    ToolContext,
    ToolResult,
)
from qwenterm.permissions.places import resolved_intents
from qwenterm.permissions.policy import decide, decide_rerun
from qwenterm.tools.apply import ChangedMeanwhileError, apply_effect

# What is shown live; the result itself is cut separately.
_LIVE_CHARS = 200_000
_HOW_TO_SEE = {
    "read": "read with start and end",
    "shell": "run it again with | head, | tail or | grep",
    "search": "search a narrower path or pattern",
    "list": "list a narrower path or pattern",
    "git": "name a path or revision",
}


@dataclass(frozen=True)
class Outcome:
    """How a call ended: `changed` says that the workspace may be different now.

    `denied`: the policy or a person said no; `unattended`: only because nobody was there.
    """

    text: str
    is_error: bool = False
    changed: bool = False
    denied: bool = False
    unattended: bool = False


async def dispatch(runtime: Runtime, call: ToolCall) -> AsyncGenerator[Event | Outcome, None]:
    """Yield a call's events and last its `Outcome`; never raises for what the call did wrong."""
    started = time.monotonic()
    yield ToolStarted(call.id, call.name, call.arguments)
    diff, result = "", ToolResult("", is_error=True)
    outcome = Outcome("")
    async with aclosing(_steps(runtime, call)) as stream:
        async for step in stream:
            if isinstance(step, Outcome):
                outcome = step
            elif isinstance(step, ToolResult):
                result = step
            elif isinstance(step, str):
                diff = step
            else:
                yield step
    text = clip(outcome.text, runtime.output_chars, _HOW_TO_SEE.get(call.name, "ask for less"))
    outcome = Outcome(text, outcome.is_error, outcome.changed, outcome.denied, outcome.unattended)
    yield ToolFinished(
        call.id,
        call.name,
        text,
        is_error=outcome.is_error,
        exit_code=result.exit_code,
        diff=diff,
        seconds=round(time.monotonic() - started, 3),
    )
    yield outcome


_Step = Event | Outcome | ToolResult | str


async def _steps(runtime: Runtime, call: ToolCall) -> AsyncGenerator[_Step, None]:
    tool = runtime.tools.get(call.name)
    problem = _invalid(tool, call.arguments, runtime)
    if tool is None or problem:
        yield Outcome(problem, is_error=True)
        return
    try:
        intents = tool.intents(call.arguments, runtime.workspace)
    except (ValueError, OSError) as error:
        yield Outcome(f"{call.name}: {error}", is_error=True)
        return
    intents = resolved_intents(intents, runtime.home, runtime.workspace)
    ruling = decide(runtime.mode, intents, runtime.places, contained=runtime.contained)
    if ruling.action == "deny":
        yield _denied(ruling, runtime)
        return
    executes = any(intent.kind in ("exec", "net") for intent in intents)
    if ruling.action == "ask" and executes:
        decision = Decision(True)
        async with aclosing(_ask(runtime, call, intents, ruling.rule)) as stream:
            async for step in stream:
                if isinstance(step, Decision):
                    decision = step
                else:
                    yield step
        if not decision.allow:
            yield _refused(decision, runtime)
            return
    result = ToolResult("", is_error=True)
    async with aclosing(_run(runtime, tool, call, ruling.access)) as stream:
        async for step in stream:
            if isinstance(step, ToolResult):
                result = step
            else:
                yield step
    access = ruling.access
    if result.blocked_write:
        again = decide_rerun(runtime.mode)
        decision = Decision(again.action == "allow")
        if again.action == "ask":
            async with aclosing(_ask(runtime, call, intents, again.rule)) as stream:
                async for step in stream:
                    if isinstance(step, Decision):
                        decision = step
                    else:
                        yield step
        if not decision.allow:
            yield _denied(again, runtime) if again.action == "deny" else _refused(decision, runtime)
            return
        access = Access.WORKSPACE
        async with aclosing(_run(runtime, tool, call, access)) as stream:
            async for step in stream:
                if isinstance(step, ToolResult):
                    result = step
                else:
                    yield step
    yield result
    if result.effect is None:
        changed = executes and access is Access.WORKSPACE
        yield Outcome(result.text, result.is_error, changed=changed)
        return
    async with aclosing(_approve_effect(runtime, call, result, result.effect)) as stream:
        async for step in stream:
            yield step


async def _approve_effect(
    runtime: Runtime, call: ToolCall, result: ToolResult, effect: Effect
) -> AsyncGenerator[_Step, None]:
    # Judged by what it would really change, whatever the tool said that it wanted.
    intents = tuple(Intent("write", str(change.path)) for change in effect.changes)
    ruling = decide(runtime.mode, intents, runtime.places, contained=runtime.contained)
    if ruling.action == "deny":
        yield _denied(ruling, runtime)
        return
    diff = unified(effect, runtime.workspace)
    if ruling.action == "ask":
        decision = Decision(False)
        async with aclosing(_ask(runtime, call, intents, ruling.rule, diff)) as stream:
            async for step in stream:
                if isinstance(step, Decision):
                    decision = step
                else:
                    yield step
        if not decision.allow:
            yield _refused(decision, runtime)
            return
    try:
        await asyncio.to_thread(apply_effect, effect)
    except ChangedMeanwhileError as error:
        yield Outcome(f"{error}. Read the file again.", is_error=True)
        return
    except OSError as error:
        yield Outcome(f"could not write: {error}", is_error=True)
        return
    yield diff
    yield Outcome(result.text, result.is_error, changed=True)


async def _ask(
    runtime: Runtime, call: ToolCall, intents: tuple[Intent, ...], reason: str, diff: str = ""
) -> AsyncGenerator[Event | Decision, None]:
    kinds = {intent.kind for intent in intents}
    # A file change once allowed always is like `edits` mode; a command only its own line.
    key = "write" if kinds <= {"read", "write"} else f"{call.name} {json.dumps(call.arguments)}"
    if runtime.approvals.remembered(key):
        yield Decision(True)
        return
    identifier = f"{call.id}-{len(diff)}-{time.monotonic_ns()}"
    runtime.approvals.open(identifier)
    yield ApprovalRequested(
        identifier, call.id, call.name, _summary(intents, runtime), reason, diff
    )
    yield await runtime.approvals.wait(identifier, key)


def _summary(intents: tuple[Intent, ...], runtime: Runtime) -> str:
    """Return what would happen, on one line for each intent."""
    lines: list[str] = []
    for intent in intents:
        target = intent.target
        if intent.kind in ("read", "write"):
            target = target.removeprefix(f"{runtime.workspace}/")
        verb = {"read": "read", "write": "change", "exec": "run", "net": "reach"}[intent.kind]
        lines.append(f"{verb} {target}")
    return "\n".join(lines)


async def _run(
    runtime: Runtime, tool: Tool, call: ToolCall, access: Access
) -> AsyncGenerator[ToolOutput | ToolResult, None]:
    """Yield a tool's live output as it comes and its result last; cancelling cancels the tool."""
    pieces: asyncio.Queue[str] = asyncio.Queue()
    shown = 0

    def emit(text: str) -> None:
        nonlocal shown
        if shown < _LIVE_CHARS:
            pieces.put_nowait(text[: _LIVE_CHARS - shown])
        shown += len(text)

    context = ToolContext(runtime.workspace, access, emit, runtime.known)
    task = asyncio.create_task(_guarded(tool, call, context))
    try:
        while not task.done():
            waiting = asyncio.create_task(pieces.get())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                continue
            text = waiting.result()
            while not pieces.empty():
                text += pieces.get_nowait()
            yield ToolOutput(call.id, text)
        while not pieces.empty():
            yield ToolOutput(call.id, pieces.get_nowait())
        yield task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _guarded(tool: Tool, call: ToolCall, context: ToolContext) -> ToolResult:
    try:
        return await tool.run(call.arguments, context)
    except (OSError, ValueError, QwentermError) as error:
        return ToolResult(f"{call.name}: {error}", is_error=True)


def _invalid(tool: Tool | None, arguments: Mapping[str, Any], runtime: Runtime) -> str:
    """Return what is wrong with a call, in words that the model can act on; empty if nothing."""
    if tool is None:
        return f"there is no such tool; the tools are {', '.join(runtime.tools)}"
    import jsonschema  # noqa: PLC0415 - 60 ms that an answer without a call need not wait for

    validator = jsonschema.Draft202012Validator(dict(tool.parameters))
    errors = [
        f"{'.'.join(map(str, error.absolute_path)) or 'arguments'}: {error.message}"
        for error in validator.iter_errors(dict(arguments))  # pyright: ignore[reportUnknownMemberType]
    ]
    if not errors:
        return ""
    return f"invalid arguments for {tool.name}: {'; '.join(errors)[:600]}"


def _denied(ruling: Ruling, runtime: Runtime) -> Outcome:
    text = f"not allowed: {ruling.rule}. Tell the user; do not try another way around it."
    # In plan mode, another mode is the approval that was missing.
    planning = runtime.mode is PermissionMode.PLAN
    return Outcome(text, is_error=True, denied=True, unattended=planning)


def _refused(decision: Decision, runtime: Runtime) -> Outcome:
    if not runtime.approvals.attended:
        hint = f"the permission mode is {runtime.mode.value}"
        if runtime.mode is not PermissionMode.AUTO:
            hint += ", and nobody is there to approve"
        text = f"not done: {hint}. Tell the user what you would do; do not try another way."
        return Outcome(text, is_error=True, denied=True, unattended=True)
    reason = f": {decision.reason}" if decision.reason else ""
    return Outcome(f"the user said no{reason}", is_error=True, denied=True)
