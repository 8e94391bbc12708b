"""Prompts as tokens, with the host's own answers as the exact tokens that it generated.

Rendering an answer again and tokenizing it gives other tokens than the model wrote: thinking is
dropped, white space trimmed, a call spelled anew. Everything after the first difference would have
to be evaluated again. So the log remembers, for each conversation that ended in an answer of
ours, the ids of all of it, and a request that continues one of them begins with these ids.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qwenterm.chat.template import Prompt
from qwenterm.engine.vocabulary import Vocabulary
from qwenterm.host.requests import CallEntry, ChatMessage, CompletionRequest

# Lengths closer than this are not worth a checkpoint each: every one ends a batch.
_MARKS_APART = 256


@dataclass(frozen=True)
class Encoded:
    """A prompt's tokens; `marks` are lengths at which messages end, `stable` the first of them.

    `spliced`: how many tokens at the beginning came from the log.
    """

    tokens: list[int]
    marks: tuple[int, ...]
    stable: int
    spliced: int


class TokenLog:
    """The conversations answered last, at most `most` tokens in all."""

    def __init__(self, vocabulary: Vocabulary, most: int = 4_000_000) -> None:
        self._vocabulary = vocabulary
        self._most = most
        self._held: dict[bytes, array[int]] = {}
        end = vocabulary.end_of_turn
        self._end = [end] if end >= 0 else []
        self._end_text = vocabulary.piece(end).decode() if end >= 0 else ""

    def encode(self, request: CompletionRequest, prompt: Prompt) -> Encoded:
        """Return the tokens of a rendered request."""
        ends = list(self._message_ends(prompt))
        tokens, start = self._logged(request, prompt, ends)
        spliced = len(tokens)
        marks: list[int] = []
        for end in [*(end for end in ends if end > start), len(prompt.text)]:
            ranges = [(max(a, start) - start, b - start) for a, b in prompt.untrusted if b > start]
            tokens += self._vocabulary.tokenize(prompt.text[start:end], ranges)
            marks.append(len(tokens))
            start = end
        last = marks[-2:-1]
        apart = [mark for mark in marks[:-1] if mark == marks[0] or mark in last]
        for mark in marks[1:-2]:
            if mark - max(other for other in apart if other < mark) >= _MARKS_APART:
                apart.append(mark)
        constant = not spliced and (request.messages[0].role in ("system", "developer"))
        stable = marks[0] if constant and len(marks) > 1 else 0
        return Encoded(tokens, tuple(sorted(apart)), stable, spliced)

    def remember(
        self,
        request: CompletionRequest,
        tokens: Sequence[int],
        content: str,
        calls: Sequence[tuple[str, str]],
    ) -> None:
        """Log an answer: all of the conversation's tokens, and what the client got of it.

        `calls` are (name, arguments as JSON).
        """
        if request.continue_final_message:
            return
        entries = [{"function": {"name": name, "arguments": text}} for name, text in calls]
        answer = ChatMessage(
            role="assistant",
            content=content,
            tool_calls=tuple(CallEntry.model_validate(entry) for entry in entries),
        )
        *_, key = _keys(request, [*request.messages, answer])
        self._held.pop(key, None)
        self._held[key] = array("i", [*tokens, *self._end])
        while self._held and sum(map(len, self._held.values())) > self._most:
            self._held.pop(next(iter(self._held)))

    def _logged(
        self, request: CompletionRequest, prompt: Prompt, ends: Sequence[int]
    ) -> tuple[list[int], int]:
        """Return the tokens of the longest logged beginning, and where the text goes on."""
        messages = list(request.messages)
        if request.continue_final_message:
            messages.pop()
        found: tuple[list[int], int] = ([], 0)
        for place, key in enumerate(_keys(request, messages)):
            held = self._held.get(key)
            if held is None or prompt.ends[place] < 0:
                continue
            after = next((end for end in ends if end > prompt.ends[place]), -1)
            # The template must close this message before it comes to the next one.
            later = [end for end in prompt.ends[place + 1 :] if end >= 0]
            if after >= 0 and not (later and min(later) <= after):
                found = (held.tolist(), after)
        return found

    def _message_ends(self, prompt: Prompt) -> Iterator[int]:
        """Yield where the template ends messages; splitting there changes no token."""
        if not self._end_text:
            return
        nothing = (len(prompt.text) + 1, len(prompt.text) + 1)
        ranges = iter(sorted(prompt.untrusted))
        low, high = next(ranges, nothing)
        for match in re.finditer(re.escape(self._end_text), prompt.text):
            while high <= match.start():
                low, high = next(ranges, nothing)
            if match.end() <= low and match.end() < len(prompt.text):
                yield match.end()


def _keys(request: CompletionRequest, messages: Sequence[ChatMessage]) -> Iterator[bytes]:
    """Yield a hash of the conversation up to each message, tools included, thinking not."""
    tools = json.dumps([tool.model_dump() for tool in request.tools], sort_keys=True)
    digest = hashlib.sha256(tools.encode("utf-8", "replace"))
    if request.drop_thinking_before:
        # The logged ids have the thinking in them, so this is another conversation from here on.
        digest.update(f"thinking dropped before {request.drop_thinking_before}".encode())
    for message in messages:
        calls = [(call.function.name, call.function.arguments) for call in message.tool_calls]
        shown = [message.role, message.content.strip(), calls]
        digest.update(json.dumps(shown, sort_keys=True).encode())
        yield digest.digest()
