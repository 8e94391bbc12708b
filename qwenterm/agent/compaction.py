"""Makes room in a conversation that no longer fits: old thinking, tool results, then old turns.

What is replaced says what it was, so that the model can look again.
"""

from __future__ import annotations

from dataclasses import replace

from qwenterm.agent.runtime import Runtime
from qwenterm.core.types import Message

_KEPT_RESULTS = 2
_SHORT = 400
_CHARS_PER_TOKEN = 3.5


def compact(runtime: Runtime) -> tuple[int, int]:
    """Shorten the conversation in place; returns its size before and after, in estimated tokens.

    Equal sizes mean that nothing more can be given up. Exact counts would need the server's
    tokenizer; the server decides whether it fits.
    """
    history = runtime.history
    before = _tokens(history)
    if runtime.settings.drop_thinking and _drop_thinking(history):
        runtime.thinking_from = len(history)
    elif not _stub_results(history):
        _drop_oldest_turn(history)
    return before, _tokens(history)


def _drop_thinking(history: list[Message]) -> bool:
    """Forget what was thought before earlier answers: what came of it is in the answers."""
    found = [index for index, message in enumerate(history) if message.thinking]
    for index in found:
        history[index] = replace(history[index], thinking="")
    return bool(found)


def _stub_results(history: list[Message]) -> bool:
    results = [
        index
        for index, message in enumerate(history)
        if message.role == "tool" and len(message.content) > _SHORT
    ]
    old = results[:-_KEPT_RESULTS] or results[:-1]
    if not old and results and len(history[results[-1]].content) > 4 * _SHORT:
        # One result alone is too much for this window: keep its beginning.
        index = results[-1]
        content = history[index].content
        cut = content[: len(content) // 2]
        history[index] = replace(history[index], content=f"{cut}\n[... cut: no room for more]")
        return True
    for index in old:
        content = history[index].content
        first = content.split("\n", 1)[0][:120]
        stub = f"{first}\n[... {len(content)} characters removed to make room; call again to see]"
        history[index] = replace(history[index], content=stub)
    return bool(old)


def _drop_oldest_turn(history: list[Message]) -> None:
    """Remove the first turn but the system message, never the current one."""
    turns = [index for index, message in enumerate(history) if message.role == "user"]
    if len(turns) >= 2:
        del history[turns[0] : turns[1]]


def _tokens(history: list[Message]) -> int:
    chars = sum(
        len(message.content)
        + len(message.thinking)
        + sum(len(str(call.arguments)) for call in message.tool_calls)
        for message in history
    )
    return round(chars / _CHARS_PER_TOKEN)
