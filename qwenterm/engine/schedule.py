"""Several requests in one context: who is evaluated next, and with how many tokens at once.

Each step evaluates one batch: first the next tokens of every answer being written, then pieces of
prompts. Whoever reads a long prompt does not stop those who are answering, and a request whose
beginning another one is just evaluating waits for it instead of evaluating it too. When the
context is full, idle conversations leave it first, then the youngest request waits outside.

All methods belong to one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from qwenterm.core.errors import ContextFullError
from qwenterm.engine.checkpoints import common_length
from qwenterm.engine.draft import Pace
from qwenterm.engine.generate import CancelledError, Evaluate, Output, Seat, Steps
from qwenterm.engine.llama import MOST_OUTPUTS, DecodeError, NoRoomError, Span, State
from qwenterm.engine.slots import Slot, Slots

_SMALLEST_PIECE = 16
# Between two checkpoints of a long prompt of a recurrent model.
_CHECKPOINT_EVERY = 1024


@dataclass(eq=False)
class Task:
    """A request: its prompt, and the generation that follows.

    `marks` are lengths of the prompt at which a recurrent model's state is worth keeping (where
    messages begin); `stable` is the length of the beginning that other conversations share.
    `generate` gets the seat and the output of the prompt's last token. `progress` gets (processed,
    total, cached). `ended` is called exactly once, with the error if there was one.
    """

    prompt: Sequence[int]
    generate: Callable[[Seat, Output], Steps]
    progress: Callable[[int, int, int], None]
    cancelled: Callable[[], bool]
    ended: Callable[[BaseException | None], None]
    marks: Sequence[int] = ()
    stable: int = 0


@dataclass(eq=False)
class _Running:
    """A task with a slot; `steps` is None while the prompt is evaluated."""

    task: Task
    seat: Seat
    cached: int
    pending: list[int]
    guesses: int = 0
    steps: Steps | None = None
    parked: tuple[list[int], State] | None = None


@dataclass
class Counters:
    """Tokens evaluated since the start, and those of them that had been evaluated before."""

    evaluated: int = 0
    batches: int = 0
    seconds: float = field(default=0.0)


class Scheduler:
    """Runs tasks; `step` does a little of all of them."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.pace = Pace(redo=slots.llama.recurrent)
        self.counters = Counters()
        self._llama = slots.llama
        self._waiting: list[Task] = []
        self._running: list[_Running] = []

    def submit(self, task: Task) -> None:
        """Queue a task; a prompt that can never fit ends it at once."""
        total, room = len(task.prompt), self._llama.n_ctx
        if total == 0:
            task.ended(ValueError("the prompt is empty"))
        elif total >= room:
            task.ended(ContextFullError(f"the prompt has {total} tokens, the context holds {room}"))
        else:
            self._waiting.append(task)

    @property
    def busy(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self._waiting or self._running)

    def step(self) -> None:
        """Evaluate one batch and let every task that got its logits go on."""
        self._drop_cancelled()
        self._admit()
        planned = self._compose()
        if not planned:
            return
        spans = [span for _, span in planned]
        started = time.monotonic()
        try:
            firsts = self._llama.decode(spans)
        except NoRoomError:
            self._make_room()
            return
        except DecodeError as error:
            self._fail_all(error)
            return
        seconds = time.monotonic() - started
        tokens = sum(len(span.tokens) for span in spans)
        self.counters.evaluated += tokens
        self.counters.batches += 1
        self.counters.seconds += seconds
        if len(spans) == 1 and spans[0].outputs:
            self.pace.record(tokens, seconds)
        for (running, span), first in zip(planned, firsts, strict=True):
            self._advance(running, span, first)

    def close(self, error: BaseException) -> None:
        """End every task with `error`."""
        for task in self._waiting:
            task.ended(error)
        self._waiting.clear()
        for running in list(self._running):
            self._end(running, error)

    # -- coming and going ----------------------------------------------------------------------

    def _drop_cancelled(self) -> None:
        for task in [task for task in self._waiting if task.cancelled()]:
            self._waiting.remove(task)
            task.ended(CancelledError())
        for running in [running for running in self._running if running.task.cancelled()]:
            self._end(running, CancelledError())

    def _admit(self) -> None:
        self._bring_back()
        for task in list(self._waiting):
            if self._somebody_evaluates(task):
                continue
            slot = self.slots.acquire(task.prompt, task.stable)
            if slot is None:
                return
            self._waiting.remove(task)
            self._start(task, slot)

    def _somebody_evaluates(self, task: Task) -> bool:
        """Return whether more of the prompt than is there now is being evaluated by another."""
        prompt = list(task.prompt)
        reach = -1
        for running in self._running:
            if running.steps is None:
                common = common_length(list(running.task.prompt), prompt)
                reach = self.slots.reach(prompt) if reach < 0 else reach
                if common > reach + self._llama.batch // 4:
                    return True
        return False

    def _start(self, task: Task, slot: Slot) -> None:
        cached = len(slot.tokens)
        running = _Running(task, Seat(slot), cached, list(task.prompt[cached:]))
        self._running.append(running)
        if cached and slot.logits is None:
            # A conversation that goes on: the way back to where it was.
            self._checkpoint(running)
        task.progress(cached, len(task.prompt), cached)
        if not running.pending:
            logits = slot.logits
            if logits is None:
                raise AssertionError("a slot with nothing to evaluate knows its logits")
            self._begin(running, Output(logits))

    def _end(self, running: _Running, error: BaseException | None) -> None:
        self._running.remove(running)
        if running.steps is not None:
            running.steps.close()
        if running.parked is None:
            self.slots.release(running.seat.slot)
        running.task.ended(error)

    def _fail_all(self, error: DecodeError) -> None:
        # What the context holds after a failed decode is not known: start clean next time.
        for running in list(self._running):
            self._end(running, error)
        self.slots.reset()

    # -- room ----------------------------------------------------------------------------------

    def _make_room(self) -> None:
        if self.slots.make_room():
            return
        inside = [running for running in self._running if running.parked is None]
        youngest = inside[-1]
        if len(inside) == 1:
            self._end(youngest, ContextFullError(f"the context of {self._llama.n_ctx} is full"))
            return
        slot = youngest.seat.slot
        youngest.parked = (list(slot.tokens), self._llama.state(slot.sequence))
        self.slots.vacate(slot)

    def _bring_back(self) -> None:
        """Let requests that had to wait outside go on, once there is room for them."""
        for running in self._running:
            if running.parked is None:
                continue
            tokens, state = running.parked
            inside = [other for other in self._running if other.parked is None]
            used = sum(len(other.seat.slot.tokens) for other in inside)
            if inside and used + len(tokens) + 2 * self._llama.batch > self._llama.n_ctx:
                continue
            slot = self.slots.take_empty()
            if slot is None:
                return
            while not self._llama.restore(slot.sequence, state):
                self._llama.forget(slot.sequence)
                if not self.slots.make_room():
                    self.slots.release(slot)
                    return
            slot.tokens = tokens
            running.seat.slot, running.parked = slot, None

    # -- one batch -----------------------------------------------------------------------------

    def _compose(self) -> list[tuple[_Running, Span]]:
        inside = [running for running in self._running if running.parked is None]
        writing = [running for running in inside if running.steps is not None]
        reading = [running for running in inside if running.steps is None]
        room = self._llama.batch
        planned: list[tuple[_Running, Span]] = []
        outputs = MOST_OUTPUTS - len(writing)
        for place, running in enumerate(writing):
            # Everybody after this one needs at least one token.
            most = room - (len(writing) - place - 1)
            span = self._next_of_answer(running, most, outputs)
            planned.append((running, span))
            outputs -= max(0, span.outputs - 1)
            room -= len(span.tokens)
        if writing:
            # Small pieces, so that those who are answering do not stand still for long.
            room = min(room, max(_SMALLEST_PIECE, self._llama.batch // 4))
        for place, running in enumerate(reading):
            share = room // (len(reading) - place)
            if share > 0:
                span = self._next_of_prompt(running, share)
                planned.append((running, span))
                room -= len(span.tokens)
        return planned

    def _next_of_answer(self, running: _Running, most: int, guesses: int) -> Span:
        slot, pending = running.seat.slot, running.pending
        too_many = len(pending) > most or running.guesses > guesses
        if running.guesses and (too_many or not self.slots.keep(slot)):
            del pending[len(pending) - running.guesses :]
            running.guesses = 0
        piece = pending[:most]
        outputs = 1 + running.guesses if len(piece) == len(pending) else 0
        return Span(slot.sequence, len(slot.tokens), piece, outputs)

    def _next_of_prompt(self, running: _Running, share: int) -> Span:
        slot, task = running.seat.slot, running.task
        position = len(slot.tokens)
        stops = [task.stable] if self.slots.warm is not None else []
        if self._llama.recurrent:
            stops += [*task.marks, (position // _CHECKPOINT_EVERY + 1) * _CHECKPOINT_EVERY]
        for stop in stops:
            if position < stop < position + share:
                share = stop - position
        piece = running.pending[:share]
        outputs = 1 if len(piece) == len(running.pending) else 0
        return Span(slot.sequence, position, piece, outputs)

    def _advance(self, running: _Running, span: Span, first: int) -> None:
        slot, task = running.seat.slot, running.task
        slot.tokens += span.tokens
        slot.logits = None
        del running.pending[: len(span.tokens)]
        if running.steps is None:
            position = len(slot.tokens)
            task.progress(position, len(task.prompt), running.cached)
            if position == task.stable:
                self.slots.save_warm(slot)
            if running.pending:
                if position in task.marks or position % _CHECKPOINT_EVERY == 0:
                    self._checkpoint(running)
                return
            self.slots.checkpoint(slot, self._llama.logits(first))
            self._begin(running, Output(first))
        elif not running.pending:
            self._resume(running, Output(first, running.guesses))

    def _checkpoint(self, running: _Running) -> None:
        slot = running.seat.slot
        if self._llama.recurrent and not self.slots.checkpoints.has(slot.tokens):
            self.slots.checkpoint(slot)

    def _begin(self, running: _Running, output: Output) -> None:
        running.steps = running.task.generate(running.seat, output)
        self._resume(running, None)

    def _resume(self, running: _Running, output: Output | None) -> None:
        steps = running.steps
        if steps is None:
            raise AssertionError("a prompt is not resumed")
        try:
            wanted = next(steps) if output is None else steps.send(output)
            while not self._fits(running, wanted):
                room = self._llama.n_ctx
                wanted = steps.throw(ContextFullError(f"the context of {room} tokens is full"))
        except StopIteration:
            self._end(running, None)
        except Exception as error:
            self._end(running, error)
        else:
            running.pending, running.guesses = list(wanted.tokens), wanted.guesses

    def _fits(self, running: _Running, wanted: Evaluate) -> bool:
        return len(running.seat.slot.tokens) + len(wanted.tokens) <= self._llama.n_ctx
