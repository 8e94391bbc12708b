"""Text to tokens and back.

Owns what tokens look like as bytes, which of them are more than their letters, and the rule that
text from outside never becomes one of those.
"""

from __future__ import annotations

import bisect
import ctypes
import re
from collections.abc import Sequence
from typing import Any

from qwenterm.engine.native import lib

# Attribute bits of llama_token_attr; user-defined tokens such as <tool_call> are matched by
# llama_tokenize even with parse_special off, so untrusted text has to be cut inside them.
_ATTR_UNKNOWN, _ATTR_CONTROL, _ATTR_USER_DEFINED = 1 << 0, 1 << 3, 1 << 4
_MORE_THAN_LETTERS = _ATTR_UNKNOWN | _ATTR_CONTROL | _ATTR_USER_DEFINED


class Vocabulary:
    """A model's tokens; valid as long as the model it came from."""

    def __init__(self, pointer: Any) -> None:
        """`pointer` is llama.cpp's vocabulary."""
        self.pointer = pointer
        self.size = int(lib.llama_vocab_n_tokens(pointer))
        self._special = self._special_texts()
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}

    @property
    def end_of_turn(self) -> int:
        """Return the token that closes a message, -1 if the vocabulary names none."""
        return int(lib.llama_vocab_eot(self.pointer))

    def tokenize(self, text: str, untrusted: Sequence[tuple[int, int]] = ()) -> list[int]:
        """Return the token ids of `text`, control tokens included.

        `untrusted` holds (start, end) ranges whose letters must stay letters: a control token's
        spelling that touches one is cut after its first character, so that it becomes plain text.
        """
        tokens: list[int] = []
        start = 0
        for cut in self._cuts(text, untrusted):
            tokens += self._tokenize(text[start:cut])
            start = cut
        return tokens + self._tokenize(text[start:])

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token as text, control tokens by their name."""
        cached = self._pieces.get(token)
        if cached is None:
            buffer = (ctypes.c_char * 256)()
            count = lib.llama_token_to_piece(self.pointer, token, buffer, 256, 0, True)
            cached = self._pieces[token] = bytes(buffer[: max(count, 0)])
        return cached

    def is_end(self, token: int) -> bool:
        """Return whether the token ends a generation.

        Any control token does: a model that writes the beginning of another message, which some
        small ones do, has nothing more to say in this one.
        """
        known = self._ends.get(token)
        if known is None:
            attributes = int(lib.llama_vocab_get_attr(self.pointer, token))
            known = bool(lib.llama_vocab_is_eog(self.pointer, token) or attributes & _ATTR_CONTROL)
            self._ends[token] = known
        return known

    def is_special(self, token: int) -> bool:
        """Return whether the token is more than its letters: a control or user-defined one."""
        return bool(int(lib.llama_vocab_get_attr(self.pointer, token)) & _MORE_THAN_LETTERS)

    def _special_texts(self) -> re.Pattern[str] | None:
        """Return a pattern that matches the text of every token that is more than its letters."""
        texts: list[str] = []
        for token in range(self.size):
            if self.is_special(token):
                raw = lib.llama_vocab_get_text(self.pointer, token)
                text = raw.decode("utf-8", "ignore") if raw else ""
                if len(text) > 1:
                    texts.append(re.escape(text))
        texts.sort(key=len, reverse=True)
        return re.compile(f"(?=({'|'.join(texts)}))") if texts else None

    def _cuts(self, text: str, untrusted: Sequence[tuple[int, int]]) -> list[int]:
        if self._special is None or not untrusted:
            return []
        ranges = sorted(untrusted)
        ends = [end for _, end in ranges]
        cuts: list[int] = []
        # Every position is looked at, because cutting one spelling may leave an overlapping one.
        for match in self._special.finditer(text):
            first = bisect.bisect_right(ends, match.start())
            if first < len(ranges) and ranges[first][0] < match.start() + len(match.group(1)):
                cuts.append(match.start() + 1)
        return cuts

    def _tokenize(self, text: str) -> list[int]:
        if not text:
            return []
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 8
        buffer = (lib.llama_token * room)()
        count = lib.llama_tokenize(self.pointer, raw, len(raw), buffer, room, False, True)
        if count < 0:
            raise ValueError(f"text of {len(raw)} bytes cannot be tokenized")
        return list(buffer[:count])
