"""Runs prompts on an engine without host and chat: the real scheduler with a plain generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from qwenterm.engine.checkpoints import CheckpointStore, ParkingStore
from qwenterm.engine.draft import Drafter
from qwenterm.engine.generate import Generation
from qwenterm.engine.llama import Llama
from qwenterm.engine.sampling import Grammar, Sampling
from qwenterm.engine.schedule import Scheduler, Task
from qwenterm.engine.slots import Slots

GREEDY = Sampling(temperature=0)
MIB = 1 << 20


@dataclass(eq=False)
class Job:
    """One request and what came of it."""

    llama: Llama
    tokens: list[int] = field(default_factory=list)
    cached: int = -1
    processed: int = 0
    cancelled: bool = False
    ended: bool = False
    error: BaseException | None = None
    drafter: Drafter | None = None

    @property
    def text(self) -> str:
        pieces = map(self.llama.vocabulary.piece, self.tokens)
        return b"".join(pieces).decode("utf-8", "replace")


class Bench:
    """A scheduler on a loaded model."""

    def __init__(self, llama: Llama, *, checkpoints=64 * MIB, parking=256 * MIB, warm=None) -> None:
        self.llama = llama
        store = CheckpointStore(checkpoints)
        self.slots = Slots(llama, store, ParkingStore(parking), warm)
        self.scheduler = Scheduler(self.slots)
        self.last_logits = np.zeros(0, np.float32)

    def tokens(self, text: str) -> list[int]:
        return self.llama.vocabulary.tokenize(text)

    def submit(
        self,
        prompt: list[int],
        count: int = 0,
        sampling: Sampling = GREEDY,
        *,
        grammar: str = "",
        until: Callable[[str], bool] = lambda _text: False,
        draft: bool = False,
        texts: tuple[list[int], ...] = (),
        stable: int = 0,
        marks: tuple[int, ...] = (),
    ) -> Job:
        """Queue a prompt with `count` tokens to generate after it."""
        job = Job(self.llama)
        if draft:
            job.drafter = Drafter(self.scheduler.pace, texts)

        def generate(seat, output):
            source = output.logits
            logits = self.llama.logits(source) if isinstance(source, int) else source
            self.last_logits = np.array(logits)
            generation = Generation(self.slots, seat, output, sampling, job.drafter)
            if grammar:
                generation.sampler.constrain(Grammar(self.llama.vocabulary, grammar))
            try:
                while len(job.tokens) < count:
                    token = generation.draw()
                    if self.llama.vocabulary.is_end(token):
                        break
                    job.tokens.append(token)
                    yield from generation.take(token)
                    if until(job.text):
                        break
                generation.settle()
            finally:
                generation.close()

        def progress(processed, _total, cached):
            job.processed, job.cached = processed, cached

        def ended(error):
            assert not job.ended
            job.ended, job.error = True, error

        self.scheduler.submit(
            Task(prompt, generate, progress, lambda: job.cancelled, ended, marks, stable)
        )
        return job

    def finish(self) -> None:
        """Step until nothing is left to do."""
        steps = 0
        while self.scheduler.busy:
            self.scheduler.step()
            steps += 1
            assert steps < 100_000

    def run(self, prompt: list[int], count: int = 0, *args, **options) -> Job:
        """Queue a prompt, finish everything, and raise what it ended with."""
        job = self.submit(prompt, count, *args, **options)
        self.finish()
        if job.error is not None:
            raise job.error
        return job
