"""One generation: draws tokens, and says what to evaluate next.

Its steps are generators that yield `Evaluate` to the scheduler and are resumed with the `Output`,
so that several generations share one batch. Owns the guesses that were evaluated ahead and are
not verified yet: they are in the slot, but the generation has not taken them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from qwenterm.engine.draft import Drafter
from qwenterm.engine.llama import Logits
from qwenterm.engine.sampling import Sampler, Sampling
from qwenterm.engine.slots import Slot, Slots


class CancelledError(Exception):
    """The caller asked to stop; the context stays usable."""


@dataclass(frozen=True)
class Evaluate:
    """Tokens to append; logits are wanted for the last `1 + guesses` of them."""

    tokens: Sequence[int]
    guesses: int = 0


@dataclass(frozen=True)
class Output:
    """Where the logits are: for the last token without guesses, and for each guess after it.

    The scheduler may leave guesses out when others need the room: `guesses` says how many it took.
    """

    logits: int | Logits
    guesses: int = 0


Steps = Generator[Evaluate, Output, None]


@dataclass(eq=False)
class Seat:
    """Where a generation sits; the scheduler may move it to another slot between two steps."""

    slot: Slot


class Generation:
    """Draws tokens after a prompt; a drawn token counts only once it is taken."""

    def __init__(
        self,
        slots: Slots,
        seat: Seat,
        output: Output,
        sampling: Sampling,
        drafter: Drafter | None = None,
    ) -> None:
        """`output` is that of the prompt's last token."""
        self.sampler = Sampler(slots.llama, sampling)
        self._slots = slots
        self._seat = seat
        self._drafter = drafter
        self._logits: int | Logits = output.logits
        self._ahead: list[int] = []
        self._drafted = 0

    @property
    def tokens(self) -> list[int]:
        """Return a copy of the conversation up to the last token taken."""
        tokens = self._seat.slot.tokens
        return tokens[: len(tokens) - len(self._ahead)]

    @property
    def length(self) -> int:
        """Return the number of tokens up to the last one taken."""
        return len(self._seat.slot.tokens) - len(self._ahead)

    def draw(self, banned: frozenset[int] = frozenset()) -> int:
        """Return a candidate for the next token without evaluating it."""
        return self.sampler.sample(self._logits, banned)

    def take(self, token: int) -> Steps:
        """Append a drawn token."""
        self.sampler.accept(token)
        if self._ahead and self._ahead[0] == token and isinstance(self._logits, int):
            # It was guessed, so its logits are there already.
            del self._ahead[0]
            self._logits += 1
            return
        again = self._drop_guesses()
        guess: list[int] = []
        if self._drafter is not None:
            room = self._slots.llama.n_ctx - self.length - len(again) - 1
            most = min(room, self._slots.llama.batch - len(again) - 1)
            guess = self._drafter.propose([*self._seat.slot.tokens, *again, token], most)
        output = yield Evaluate([*again, token, *guess], len(guess))
        self._logits = output.logits
        self._ahead = guess[: output.guesses]
        self._drafted = output.guesses

    def force(self, tokens: Sequence[int]) -> Steps:
        """Append tokens that were not drawn; an active grammar follows along."""
        for token in tokens:
            self.sampler.accept(token)
        output = yield Evaluate([*self._drop_guesses(), *tokens])
        self._logits = output.logits

    def rewind(self, length: int) -> Steps:
        """Take back all tokens but the first `length` (at least one)."""
        slot = self._seat.slot
        # The last token is evaluated again, so that there are logits to draw from.
        wanted = [*self.tokens[:length]]
        self._drop_guesses()
        self._slots.cut(slot, length - 1)
        output = yield Evaluate(wanted[len(slot.tokens) :])
        self._logits = output.logits

    def settle(self) -> None:
        """Drop what was evaluated and not taken; the slot then holds exactly `tokens`."""
        # Evaluating again what a recurrent model lost is left to whoever comes next.
        self._drop_guesses()

    def close(self) -> None:
        """Free the sampler."""
        self.sampler.close()

    def _drop_guesses(self) -> list[int]:
        """Drop unverified guesses; return taken tokens that have to be evaluated again."""
        if self._drafter is not None and self._drafted:
            self._drafter.judge(self._drafted, self._drafted - len(self._ahead))
        self._drafted = 0
        if not self._ahead:
            return []
        length = self.length
        self._ahead = []
        return self._slots.back(self._seat.slot, length)
