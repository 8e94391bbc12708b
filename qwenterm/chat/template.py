"""Renders a conversation with the chat template that came in the model file.

The template is untrusted code, so it runs in jinja2's sandbox. The messages are untrusted text:
each piece is hidden behind a marker while the template runs and put back afterwards, so the
template cannot be steered by content, and the caller learns which ranges of the prompt came
from outside and must never become control tokens.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwenterm.core.errors import QwentermError, UsageError

MAX_TEMPLATE_CHARS = 200_000


@dataclass(frozen=True)
class Prompt:
    """Rendered text, and the (start, end) ranges of it that came from messages and tools.

    `ends`: for each message, where the last of its own text ends, -1 if none of it is there.
    """

    text: str
    untrusted: tuple[tuple[int, int], ...]
    ends: tuple[int, ...] = ()


class _Markers:
    """Stand-ins for untrusted strings during one rendering."""

    def __init__(self) -> None:
        # The nonce keeps a message from containing another message's marker.
        self._nonce = secrets.token_hex(8)
        self._texts: list[str] = []
        self.pattern = re.compile(f"\ue000{self._nonce}:([0-9]+)\ue001")

    def hide(self, text: str) -> str:
        # Templates branch on empty content, so that stays visible.
        if not text.strip():
            return ""
        self._texts.append(text)
        return f"\ue000{self._nonce}:{len(self._texts) - 1}\ue001"

    @property
    def count(self) -> int:
        return len(self._texts)

    def reveal(self, text: str) -> str:
        return self.pattern.sub(lambda match: self._texts[int(match.group(1))], text)

    def assemble(self, rendered: str, counts: Sequence[int]) -> Prompt:
        """Put the texts back; `counts` says how many there were after each message."""
        found: dict[int, int] = {}
        parts: list[str] = []
        ranges: list[tuple[int, int]] = []
        length = last = 0
        for match in self.pattern.finditer(rendered):
            before = rendered[last : match.start()]
            text = self._texts[int(match.group(1))]
            start = length + len(before)
            length = start + len(text)
            parts += [before, text]
            ranges.append((start, length))
            found[int(match.group(1))] = length
            last = match.end()
        ends = [
            max((found.get(number, -1) for number in range(before, after)), default=-1)
            for before, after in itertools.pairwise([0, *counts])
        ]
        return Prompt("".join([*parts, rendered[last:]]), tuple(ranges), tuple(ends))


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    continue_final: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> Prompt:
    """Render OpenAI-style `messages` and `tools` and open the assistant's turn.

    Assistant messages may carry `reasoning_content` and `tool_calls` with decoded arguments.
    `continue_final` leaves the last message, an assistant's, open at its end. `variables` are
    handed to the template (`enable_thinking`). Raises `UsageError` when the template refuses the
    conversation, `QwentermError` when the template itself is broken.
    """
    if len(template) > MAX_TEMPLATE_CHARS:
        raise QwentermError(f"the model file's chat template has {len(template)} characters")
    markers = _Markers()

    def tojson(value: Any, **_options: Any) -> str:
        # The JSON text as a whole is from outside; strings in it are already markers.
        return markers.hide(json.dumps(_map_strings(value, markers.reveal), ensure_ascii=False))

    def refuse(message: str) -> None:
        raise UsageError(f"the model's chat template refuses this conversation: {message}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    names = cast("dict[str, Any]", environment.globals)
    names["raise_exception"] = refuse
    shown: list[dict[str, Any]] = []
    counts: list[int] = []
    for message in messages:
        shown.append(_hidden(message, markers))
        counts.append(markers.count)
    final = ""
    if continue_final:
        final = str(shown.pop().get("content", ""))
    try:
        rendered = environment.from_string(template).render(
            messages=shown,
            tools=list(tools) or None,
            add_generation_prompt=True,
            **(variables or {}),
        )
    except TemplateError as error:
        raise QwentermError(f"the model file's chat template fails: {error}") from None
    if final and rendered.endswith("<think>\n"):
        # The final message is the answer, so its thinking is over.
        rendered += "\n</think>\n\n"
    return markers.assemble(rendered + final, counts)


def _hidden(message: Mapping[str, Any], markers: _Markers) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "role": message["role"],
        "content": markers.hide(str(message.get("content") or "")),
    }
    if message.get("reasoning_content"):
        shown["reasoning_content"] = markers.hide(str(message["reasoning_content"]))
    calls: Sequence[Mapping[str, Any]] = message.get("tool_calls") or ()
    if calls:
        shown["tool_calls"] = [
            {
                "type": "function",
                "function": {
                    "name": markers.hide(str(call["name"])),
                    "arguments": _map_strings(call["arguments"], markers.hide),
                },
            }
            for call in calls
        ]
    return shown


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Return `value` (as JSON has it) with every string in it, keys too, changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {_map_strings(key, change): _map_strings(item, change) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [_map_strings(item, change) for item in cast("list[Any]", value)]
    return value
