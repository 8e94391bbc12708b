"""One generation: evaluate a prompt in chunks, then draw and evaluate token by token.

Owns the bookkeeping of what the context holds (`Context.tokens`), so that a prompt that begins
with the same tokens is evaluated only from the first difference on. Cancelling is checked
between chunks and between tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwenterm.core.errors import ContextFullError
from qwenterm.engine.llama import DecodeError, Llama
from qwenterm.engine.sampling import Sampler, Sampling


class CancelledError(Exception):
    """The caller asked to stop; the context stays usable."""


@dataclass(frozen=True)
class Prefill:
    """How a prompt was evaluated: tokens in all, tokens reused, seconds for the rest."""

    total: int
    cached: int
    seconds: float


class Context:
    """A model's context and the exact tokens in it."""

    def __init__(self, llama: Llama) -> None:
        self.llama = llama
        self.tokens: list[int] = []

    def prefill(
        self,
        prompt: Sequence[int],
        *,
        progress: Callable[[int, int, int], None],
        cancelled: Callable[[], bool],
    ) -> Prefill:
        """Bring the context to exactly `prompt`, with the last token's logits ready.

        `progress` gets (processed, total, cached). Raises `ContextFullError`, `CancelledError`.
        """
        total = len(prompt)
        if total >= self.llama.n_ctx:
            raise ContextFullError(
                f"the prompt has {total} tokens, the context holds {self.llama.n_ctx}"
            )
        cached = self._rewind(prompt)
        started = time.monotonic()
        progress(cached, total, cached)
        for start in range(cached, total, self.llama.batch):
            if cancelled():
                raise CancelledError
            self.append(prompt[start : start + self.llama.batch])
            progress(len(self.tokens), total, cached)
        return Prefill(total, cached, time.monotonic() - started)

    def append(self, tokens: Sequence[int]) -> None:
        """Evaluate at most `llama.batch` more tokens; raises `ContextFullError`."""
        if len(self.tokens) + len(tokens) > self.llama.n_ctx:
            raise ContextFullError(f"the context of {self.llama.n_ctx} tokens is full")
        try:
            self.llama.evaluate(tokens)
        except DecodeError as error:
            # What the context holds after a failed decode is not known: start clean next time.
            self.llama.forget_all()
            self.tokens.clear()
            if error.code == 1:
                raise ContextFullError("no room left in the context") from None
            raise
        self.tokens += tokens

    def rewind(self, length: int) -> bool:
        """Cut the context back to `length` tokens; False when the model's state cannot be cut."""
        if not self.llama.forget_from(length):
            return False
        del self.tokens[length:]
        return True

    def _rewind(self, prompt: Sequence[int]) -> int:
        """Keep the common prefix, but leave at least one token to evaluate; return its length."""
        same = 0
        for ours, theirs in zip(self.tokens, prompt):  # noqa: B905 - stops at the shorter one
            if ours != theirs:
                break
            same += 1
        same = min(same, len(prompt) - 1)
        if same < len(self.tokens) and (same == 0 or not self.rewind(same)):
            self.llama.forget_all()
            self.tokens.clear()
            return 0
        return same


class Generation:
    """Draws tokens after a prompt; a drawn token counts only once it is taken."""

    def __init__(self, context: Context, sampling: Sampling) -> None:
        self.context = context
        self.sampler = Sampler(context.llama, sampling)

    def draw(self, banned: frozenset[int] = frozenset()) -> int:
        """Return a candidate for the next token without evaluating it."""
        return self.sampler.sample(banned)

    def take(self, token: int) -> None:
        """Evaluate a drawn token; raises `ContextFullError`."""
        self.sampler.accept(token)
        self.context.append([token])

    def force(self, tokens: Sequence[int]) -> None:
        """Evaluate tokens that were not drawn; an active grammar follows along."""
        for token in tokens:
            self.sampler.accept(token)
        for start in range(0, len(tokens), self.context.llama.batch):
            self.context.append(tokens[start : start + self.context.llama.batch])

    def close(self) -> None:
        """Free the sampler."""
        self.sampler.close()
