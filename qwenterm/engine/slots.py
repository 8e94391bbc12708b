"""Which tokens each sequence of the context holds, and how one comes to hold a prompt's beginning.

Owns the choice between going on in place, forking from a conversation that begins alike, bringing
a parked one back, and reading a saved beginning from disk. What would be lost by going on in
place, such as the main line when a side question is asked, stays in its own sequence.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from qwenterm.engine.checkpoints import (
    Checkpoint,
    CheckpointStore,
    ParkingStore,
    common_length,
)
from qwenterm.engine.llama import DecodeError, Llama, Logits
from qwenterm.engine.warm import WarmStore

# Fewer tokens than this are evaluated again sooner than looked after.
_WORTH_SHARING = 8
_WORTH_PARKING = 64
# Attention passes over the cells of others too: at 2 cores, 1,500 of them make a token 5% slower
# and a prompt 2%. To save and restore a state takes some milliseconds.
_MOST_IDLE = 256


@dataclass(eq=False)
class Slot:
    """A sequence of the context and the exact tokens in it.

    `logits`: those after the last token, where they are known without evaluating it.
    """

    sequence: int
    tokens: list[int] = field(default_factory=list[int])
    logits: Logits | None = None
    busy: bool = False
    used: int = 0


@dataclass(frozen=True)
class _Source:
    """A place that holds the first `length` tokens of a prompt."""

    length: int = 0
    slot: Slot | None = None
    parked: Checkpoint | None = None
    checkpoint: Checkpoint | None = None


class Slots:
    """All sequences of a model's context."""

    def __init__(
        self,
        llama: Llama,
        checkpoints: CheckpointStore,
        parking: ParkingStore,
        warm: WarmStore | None = None,
    ) -> None:
        self.llama = llama
        self.checkpoints = checkpoints
        self.parking = parking
        self.warm = warm
        self.slots = [Slot(sequence) for sequence in range(llama.sequences)]
        self._clock = itertools.count(1)
        self._kept: tuple[Slot, int] | None = None  # whose state the spare sequence has, and where

    # -- getting a slot ------------------------------------------------------------------------

    def reach(self, prompt: Sequence[int]) -> int:
        """Return how many of the prompt's tokens would not have to be evaluated now."""
        return self._best(prompt).length

    def acquire(self, prompt: Sequence[int], stable: int = 0) -> Slot | None:
        """Return a busy slot that holds a beginning of `prompt`, None if all slots are busy.

        At least one token of the prompt is left to evaluate, unless `Slot.logits` says what
        follows the last one. `stable` is the length of the beginning that may be on disk.
        """
        source = self._best(prompt)
        if source.length < stable - _WORTH_SHARING:
            slot = self._from_disk(prompt[:stable])
            if slot is not None:
                return slot
        slot = self._place(source)
        if slot is None:
            return None
        slot.busy = True
        slot.used = next(self._clock)
        self._tidy(slot)
        return slot

    def release(self, slot: Slot) -> None:
        """A request is done with its slot; what it holds stays for the next one."""
        slot.busy = False
        slot.used = next(self._clock)
        slot.logits = None
        self._let_go(slot)

    def take_empty(self) -> Slot | None:
        """Return an empty busy slot, at the price of parking an idle one; None if all are busy."""
        slot = self._empty()
        if slot is not None:
            slot.busy = True
            slot.used = next(self._clock)
        return slot

    def vacate(self, slot: Slot) -> None:
        """Empty a busy slot whose request goes on elsewhere."""
        self._clear(slot)
        self.release(slot)

    def make_room(self) -> bool:
        """Move the conversation that was idle longest out of the context; False if none is."""
        idle = [slot for slot in self.slots if not slot.busy and slot.tokens]
        if not idle:
            return False
        self._park(min(idle, key=lambda slot: slot.used))
        return True

    def reset(self) -> None:
        """Nothing is known of the context any more: empty it."""
        self.llama.forget_all()
        self._kept = None
        for slot in self.slots:
            slot.tokens.clear()
            slot.logits = None

    # -- going back ----------------------------------------------------------------------------

    def cut(self, slot: Slot, length: int) -> None:
        """Bring a slot back to its first `length` tokens, or to fewer where its state says so.

        The caller evaluates again what is missing.
        """
        if length >= len(slot.tokens):
            return
        checkpoint = None
        if self.llama.recurrent:
            checkpoint = self.checkpoints.find(slot.tokens[: length + 1], length)
            length = len(checkpoint.tokens) if checkpoint else 0
        self._cut(slot, length, checkpoint)

    def keep(self, slot: Slot) -> bool:
        """Note the state of a recurrent model's slot for `back`; False if another's is noted."""
        spare = self.llama.spare_sequence
        if spare is None:
            return True
        if self._kept is not None and self._kept[0] is not slot:
            return False
        self.llama.forget(spare)
        self.llama.copy(slot.sequence, spare)
        self._kept = (slot, len(slot.tokens))
        return True

    def back(self, slot: Slot, length: int) -> list[int]:
        """Drop what a slot holds beyond `length`, at best by what `keep` noted.

        Returns the tokens before `length` that have to be evaluated again.
        """
        spare = self.llama.spare_sequence
        wanted = slot.tokens[:length]
        if spare is not None and self._kept is not None and self._kept[0] is slot:
            kept = self._kept[1]
            self.llama.forget(slot.sequence)
            self.llama.copy(spare, slot.sequence)
            del slot.tokens[kept:]
            self._let_go(slot)
        else:
            self.cut(slot, length)
        slot.logits = None
        return wanted[len(slot.tokens) :]

    def checkpoint(self, slot: Slot, logits: Logits | None = None) -> None:
        """Save a recurrent model's state as it is now; other models need none."""
        if self.llama.recurrent and slot.tokens:
            state = self.llama.state(slot.sequence, partial=True)
            self.checkpoints.add(slot.tokens, state, logits)

    def save_warm(self, slot: Slot) -> None:
        """Write the state of a slot to disk, unless it is there."""
        if self.warm is not None and not self.warm.has(slot.tokens):
            self.warm.save(slot.tokens, self.llama.state(slot.sequence))

    # -- choosing ------------------------------------------------------------------------------

    def _best(self, prompt: Sequence[int]) -> _Source:
        best = _Source()
        for slot in sorted(self.slots, key=lambda slot: (slot.busy, -slot.used)):
            length, checkpoint = self._usable(slot.tokens, prompt)
            if length > best.length:
                best = _Source(length, slot, None, checkpoint)
        for parked in self.parking.parked:
            length, checkpoint = self._usable(parked.tokens.tolist(), prompt)
            if length > best.length:
                best = _Source(length, None, parked, checkpoint)
        return best if best.length >= _WORTH_SHARING else _Source()

    def _usable(self, tokens: list[int], prompt: Sequence[int]) -> tuple[int, Checkpoint | None]:
        common = common_length(tokens, list(prompt))
        if common == len(tokens) < len(prompt):
            return common, None
        if not self.llama.recurrent:
            return min(common, len(prompt) - 1), None
        checkpoint = self.checkpoints.find(prompt, common)
        return (len(checkpoint.tokens), checkpoint) if checkpoint else (0, None)

    def _place(self, source: _Source) -> Slot | None:
        if source.parked is not None:
            return self._unpark(source)
        origin = source.slot
        if origin is None:
            return self._empty()
        lost = len(origin.tokens) - source.length
        if origin.busy or lost > 0:
            free = any(not slot.busy and not slot.tokens for slot in self.slots)
            if origin.busy or free or lost >= _WORTH_PARKING:
                slot = self._empty(keep=origin)
                if slot is not None:
                    self.llama.copy(origin.sequence, slot.sequence)
                    slot.tokens = list(origin.tokens)
                    return self._cut(slot, source.length, source.checkpoint)
                if origin.busy:
                    return None
        return self._cut(origin, source.length, source.checkpoint)

    def _cut(self, slot: Slot, length: int, checkpoint: Checkpoint | None) -> Slot:
        done = True
        if checkpoint is not None:
            done = self.llama.restore(slot.sequence, checkpoint.state, partial=True)
        if done and length < len(slot.tokens):
            done = length > 0 and self.llama.forget(slot.sequence, length)
        if not done:
            self._clear(slot)
            return slot
        del slot.tokens[length:]
        slot.logits = checkpoint.logits if checkpoint else None
        return slot

    def _empty(self, keep: Slot | None = None) -> Slot | None:
        """Return an empty slot; the conversation idle longest, other than `keep`, makes way."""
        idle = [slot for slot in self.slots if not slot.busy and slot is not keep]
        if not idle:
            return None
        slot = min(idle, key=lambda slot: (bool(slot.tokens), slot.used))
        self._park(slot)
        return slot

    def _tidy(self, busy: Slot) -> None:
        """Park what others left in the context, as far as memory is set aside for it."""
        idle = [slot for slot in self.slots if not slot.busy and slot is not busy]
        idle.sort(key=lambda slot: slot.used)
        own = {id(slot): len(slot.tokens) - self._shared(slot) for slot in idle}
        for slot in idle:
            if sum(own.values()) <= max(_MOST_IDLE, len(busy.tokens) // 4):
                return
            if own.pop(id(slot)) >= _WORTH_PARKING:
                # Where another conversation would be dropped for it, slower is better than lost.
                if self.llama.state_size(slot.sequence) > self.parking.free:
                    return
                self._park(slot)

    def _shared(self, slot: Slot) -> int:
        others = [other.tokens for other in self.slots if other is not slot]
        return max((common_length(slot.tokens, tokens) for tokens in others), default=0)

    def _park(self, slot: Slot) -> None:
        if len(slot.tokens) - self._shared(slot) >= _WORTH_PARKING:
            try:
                self.parking.add(slot.tokens, self.llama.state(slot.sequence))
            except DecodeError:
                self._clear(slot)
        self._clear(slot)

    def _unpark(self, source: _Source) -> Slot | None:
        parked = source.parked
        slot = self._empty()
        if parked is None or slot is None:
            return slot
        while not self.llama.restore(slot.sequence, parked.state):
            self.llama.forget(slot.sequence)
            if not self.make_room():
                return slot
        slot.tokens = parked.tokens.tolist()
        if len(slot.tokens) - source.length < _WORTH_PARKING:
            self.parking.remove(parked)
        return self._cut(slot, source.length, source.checkpoint)

    def _from_disk(self, tokens: Sequence[int]) -> Slot | None:
        state = self.warm.load(tokens) if self.warm else None
        slot = self.take_empty() if state is not None else None
        if self.warm is None or state is None or slot is None:
            return None
        while not self.llama.restore(slot.sequence, state):
            self.llama.forget(slot.sequence)
            if not self.make_room():
                self.warm.discard(tokens)
                slot.busy = False
                return None
        slot.tokens = list(tokens)
        self.checkpoint(slot)
        return slot

    def _clear(self, slot: Slot) -> None:
        self.llama.forget(slot.sequence)
        slot.tokens = []
        slot.logits = None
        self._let_go(slot)

    def _let_go(self, slot: Slot) -> None:
        if self._kept is not None and self._kept[0] is slot and self.llama.spare_sequence:
            self.llama.forget(self.llama.spare_sequence)
            self._kept = None
