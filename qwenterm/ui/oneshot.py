"""One question, one answer: the answer on stdout, everything else on stderr.

Text goes out as it comes on a terminal. Into a pipe, the beginning of each step is held back until
it is clear that it is the answer and not a remark before a tool call.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

from qwenterm.agent.loop import run_turn
from qwenterm.agent.runtime import Runtime
from qwenterm.core import events
from qwenterm.core.errors import EXIT_INTERRUPTED, QwentermError
from qwenterm.ui.progress import ProgressLine
from qwenterm.ui.render import call_summary, sanitize
from qwenterm.ui.terminal import Terminal

OutputFormat = Literal["text", "json", "stream-json"]
EXIT_PIPE = 128 + signal.SIGPIPE
# A remark before a call is shorter than this, nearly always.
_HELD_CHARS = 400


@dataclass
class _Output:
    """Where the answer goes and what of it is there already.

    `live`: text goes out as it comes. `whole`: only a complete answer may go out at all.
    """

    stdout: TextIO
    progress: ProgressLine
    form: OutputFormat
    live: bool
    whole: bool
    held: str = ""
    streaming: bool = False
    tools: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    usage: dict[str, float] = field(default_factory=dict[str, float])
    ended: events.TurnEnded | None = None


async def run_oneshot(
    runtime: Runtime,
    prompt: str,
    *,
    attachment: str = "",
    form: OutputFormat = "text",
    schema: Mapping[str, Any] | None = None,
    terminal: Terminal | None = None,
) -> int:
    """Run one turn and return the process's exit status.

    `terminal` answers approvals; without one, the answer is no.
    """
    runtime.approvals.attended = terminal is not None
    live = sys.stdout.isatty() and schema is None
    output = _Output(
        sys.stdout, ProgressLine(sys.stderr), form, live=live, whole=schema is not None
    )
    loop = asyncio.get_running_loop()
    turn = asyncio.create_task(_turn(runtime, prompt, attachment, schema, output, terminal))
    loop.add_signal_handler(signal.SIGINT, turn.cancel)
    try:
        return await turn
    except asyncio.CancelledError:
        output.progress.clear()
        if form == "stream-json":
            ended = events.TurnEnded("cancelled", details={"status": EXIT_INTERRUPTED})
            _write(output, events.to_json(ended) + "\n")
        sys.stderr.write("qwenterm: interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        discard_stdout()
        return EXIT_PIPE
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _turn(
    runtime: Runtime,
    prompt: str,
    attachment: str,
    schema: Mapping[str, Any] | None,
    output: _Output,
    terminal: Terminal | None,
) -> int:
    stream = run_turn(runtime, prompt, attachment=attachment, schema=schema)
    try:
        async for event in stream:
            if output.form == "stream-json":
                _write(output, events.to_json(event) + "\n")
            _show(event, output)
            if isinstance(event, events.ApprovalRequested) and terminal is not None:
                output.progress.clear()
                # Started with `&`, or sent to the background meanwhile.
                runtime.approvals.attended = terminal.in_foreground()
                if runtime.approvals.attended:
                    runtime.approvals.answer(event.id, await terminal.ask(event))
    finally:
        await stream.aclose()
        output.progress.clear()
    ended = output.ended
    if ended is None:
        raise RuntimeError("a turn ended without saying so")
    _finish(output, ended, schema)
    if ended.error:
        sys.stderr.write(f"qwenterm: {sanitize(ended.error)}\n")
    return int(ended.details.get("status", 1))


def _show(event: events.Event, output: _Output) -> None:
    progress = output.progress
    if isinstance(event, events.TextDelta):
        if output.form == "text":
            _text(output, event.text)
    elif isinstance(event, events.LoadProgress):
        progress.update("loading the model", event.fraction)
    elif isinstance(event, events.PrefillProgress):
        rest = max(1, event.total - event.cached)
        progress.update("reading", (event.processed - event.cached) / rest, quiet=True)
    elif isinstance(event, events.ToolStarted):
        _end_step(output)
        progress.line(f"{sanitize(event.name)} {call_summary(event.arguments)}")
    elif isinstance(event, events.ToolFinished):
        output.tools.append(
            {"name": event.name, "is_error": event.is_error, "exit_code": event.exit_code}
        )
        if event.is_error:
            progress.line(f"  {sanitize(event.text.splitlines()[0] if event.text else '')[:160]}")
    elif isinstance(event, events.Notice):
        _end_step(output)
        progress.line(sanitize(event.text))
    elif isinstance(event, events.Compacted):
        progress.line("made room: old tool results were shortened")
    elif isinstance(event, events.Usage):
        for key in ("prompt", "cached", "completion", "prompt_seconds", "completion_seconds"):
            output.usage[key] = round(output.usage.get(key, 0) + getattr(event, key), 4)
    elif isinstance(event, events.TurnEnded):
        output.ended = event


def _text(output: _Output, text: str) -> None:
    if output.live:
        output.progress.clear()
        _write(output, sanitize(text))
        output.streaming = True
        return
    output.held += text
    if output.whole:
        return
    if output.streaming or len(output.held) > _HELD_CHARS:
        output.progress.clear()
        _write(output, output.held)
        output.held, output.streaming = "", True


def _end_step(output: _Output) -> None:
    """What was held was a remark before a call: it belongs to the side channel."""
    remark = output.held.strip()
    if output.streaming:
        _write(output, "\n")
    elif remark:
        output.progress.line(sanitize(remark.splitlines()[0])[:200])
    output.held, output.streaming = "", False


def _finish(output: _Output, ended: events.TurnEnded, schema: Mapping[str, Any] | None) -> None:
    if output.form == "json":
        result: dict[str, Any] = {
            "answer": ended.answer,
            "reason": ended.reason,
            "error": ended.error,
            "status": ended.details.get("status"),
            "steps": ended.steps,
            "tools": output.tools,
            "usage": output.usage,
        }
        if schema is not None:
            result["structured"] = _parsed(ended.answer)
        _write(output, json.dumps(result, ensure_ascii=False) + "\n")
    elif output.form == "text":
        if schema is not None:
            # Whoever reads it counts on the schema: an answer that breaks it is no answer.
            rest = ended.answer if ended.reason == "answered" else ""
        else:
            # Not what was held: that may hold an answer which the loop has sent back.
            rest = output.held if output.streaming or output.live else ended.answer
        if output.stdout.isatty():
            rest = sanitize(rest)
        if ended.answer and not ended.answer.endswith("\n") and (rest or schema is None):
            rest += "\n"
        _write(output, rest)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _write(output: _Output, text: str) -> None:
    try:
        output.stdout.write(text)
        output.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise QwentermError(f"the answer cannot be written: {error.strerror}") from None


def discard_stdout() -> None:
    """Let what is still to be written go nowhere, also at the interpreter's last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
