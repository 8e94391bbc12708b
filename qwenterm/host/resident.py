"""The one place where a model is loaded, and its state as others see it.

All native calls go through one worker thread, so loading cannot overlap with an answer. State is
read from the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from qwenterm.core.errors import QwentermError, UnavailableError
from qwenterm.host.deltas import Delta, Joined
from qwenterm.host.requests import CompletionRequest, LoadRequest
from qwenterm.host.room import check_room, shortage

if TYPE_CHECKING:
    # llama.cpp is not waited for when the host starts.
    from qwenterm.engine.llama import Llama
    from qwenterm.host.completion import Workbench
    from qwenterm.host.worker import Worker

State = Literal["empty", "loading", "ready", "error"]
log = logging.getLogger("qwenterm.host")


@dataclass
class Status:
    """What the host can say about itself at any moment; `progress` is 0..1 while loading."""

    state: State = "empty"
    progress: float = 0.0
    message: str = ""
    n_ctx: int = 0
    n_params: int = 0
    size: int = 0
    gpu: bool = False
    load_seconds: float = 0.0


class ResidentModel:
    """Holds at most one loaded model."""

    def __init__(self) -> None:
        self.status = Status()
        self.wanted: LoadRequest | None = None
        self.pending = 0
        self.answered = 0
        self._worker: Worker | None = None
        self._bench: Workbench | None = None
        self._last_active = time.monotonic()
        self._abandoned = threading.Event()

    @property
    def idle_seconds(self) -> float:
        """Return the time since the last request ended, 0 while one is there."""
        busy = self.pending or self.status.state == "loading"
        return 0.0 if busy else time.monotonic() - self._last_active

    @property
    def memory_bytes(self) -> int:
        """Return the resident memory of this process."""
        return int(psutil.Process().memory_info().rss)

    @property
    def evaluated_tokens(self) -> int:
        """Return the tokens that the loaded model has evaluated."""
        scheduler = self._worker.scheduler if self._worker else None
        return scheduler.counters.evaluated if scheduler else 0

    @property
    def cache_bytes(self) -> int:
        """Return the memory that saved states take besides the context."""
        slots = self._bench.slots if self._bench else None
        return slots.checkpoints.size + slots.parking.size if slots else 0

    def load(self, wanted: LoadRequest) -> None:
        """Begin to load; nothing happens when exactly that is loaded or being loaded."""
        if wanted == self.wanted and self.status.state in ("ready", "loading"):
            return
        self.wanted = wanted
        # The load that is running belongs to nobody any more, so it stops at its next report.
        self._abandoned.set()
        self._abandoned = abandoned = threading.Event()
        self.status = Status("loading")
        status = self.status
        self._engine().order(lambda: self._load(wanted, status, abandoned), alone=True)

    def unload(self) -> None:
        """Free the model once the requests before this one are done."""
        self.wanted = None
        self._abandoned.set()
        self.status = Status("empty")
        if self._worker is not None:
            self._worker.order(self._free, alone=True)

    def close(self) -> None:
        """Stop the worker; waiting requests are dropped."""
        self._abandoned.set()
        if self._worker is not None:
            self._worker.close()
            self._free()

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Yield the deltas of one completion; closing the iterator cancels it.

        Raises what `Completion` raises, and `UnavailableError` while no model is loaded.
        """
        if self.status.state != "ready":
            raise UnavailableError(self._why_not_ready())
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue()
        cancelled = threading.Event()

        def put(item: Delta | BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before the engine
                loop.call_soon_threadsafe(queue.put_nowait, item)

        self.pending += 1
        try:
            self._engine().order(partial(self._begin, request, put, cancelled.is_set))
            while (item := await queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            cancelled.set()
            self.pending -= 1
            self.answered += 1
            self._last_active = time.monotonic()

    def _why_not_ready(self) -> str:
        if self.status.state == "loading":
            return f"the model is still loading ({self.status.progress:.0%})"
        if self.status.state == "error":
            return self.status.message
        return "no model is loaded"

    def _engine(self) -> Worker:
        if self._worker is None:
            from qwenterm.host.worker import Worker  # noqa: PLC0415 - loads llama.cpp

            self._worker = Worker()
        return self._worker

    # -- on the worker thread ------------------------------------------------------------------

    def _begin(
        self,
        request: CompletionRequest,
        put: Callable[[Delta | BaseException | None], None],
        cancelled: Callable[[], bool],
    ) -> None:
        from qwenterm.host.completion import Completion  # noqa: PLC0415 - loads llama.cpp

        try:
            scheduler = self._engine().scheduler
            if self._bench is None or scheduler is None:
                raise UnavailableError("no model is loaded")
            if not cancelled():
                joined = Joined(put)
                completion = Completion(self._bench, request, joined.put, cancelled)
                scheduler.submit(completion.task(joined.put))
        except Exception as error:
            put(error)

    def _load(self, wanted: LoadRequest, status: Status, abandoned: threading.Event) -> None:
        self._free()
        started = time.monotonic()
        try:
            from qwenterm.engine.llama import (  # noqa: PLC0415 - loads llama.cpp
                Llama,
                LoadCancelledError,
                LoadParameters,
                MemoryShortageError,
                gpu_supported,
            )

            check_room(wanted, gpu=gpu_supported() and wanted.n_gpu_layers != 0)

            def progress(fraction: float) -> bool:
                status.progress = fraction
                return not abandoned.is_set()

            parameters = LoadParameters(
                wanted.n_ctx, wanted.n_gpu_layers, wanted.threads, wanted.batch, wanted.sequences
            )
            try:
                llama = Llama(Path(wanted.path), parameters, progress)
            except LoadCancelledError:
                return
            except MemoryShortageError:
                raise shortage(wanted) from None
        except QwentermError as error:
            status.state, status.message = "error", str(error)
            log.error("load: %s", error)
            return
        except Exception as error:
            status.state, status.message = "error", f"loading failed: {error}"
            log.exception("load")
            return
        if abandoned.is_set():
            llama.close()
            return
        self._furnish(llama, wanted)
        status.n_ctx, status.n_params, status.size = llama.n_ctx, llama.n_params, llama.size
        status.gpu = llama.gpu
        status.load_seconds = round(time.monotonic() - started, 3)
        self._last_active = time.monotonic()
        # Last, because it tells the other thread that everything above is there.
        status.state = "ready"
        log.info("loaded %s in %.1f s", wanted.path, status.load_seconds)

    def _furnish(self, llama: Llama, wanted: LoadRequest) -> None:
        """Build everything that requests share around a loaded model."""
        from qwenterm.engine.checkpoints import (  # noqa: PLC0415 - loads llama.cpp
            CheckpointStore,
            ParkingStore,
        )
        from qwenterm.engine.sampling import GrammarCache  # noqa: PLC0415
        from qwenterm.engine.schedule import Scheduler  # noqa: PLC0415
        from qwenterm.engine.slots import Slots  # noqa: PLC0415
        from qwenterm.engine.warm import WarmStore, fingerprint  # noqa: PLC0415
        from qwenterm.host.completion import Workbench  # noqa: PLC0415
        from qwenterm.host.token_log import TokenLog  # noqa: PLC0415

        warm = None
        if wanted.warm_folder and wanted.warm_mb:
            folder = Path(wanted.warm_folder)
            parameters = f"gpu={llama.gpu} recurrent={llama.recurrent}"
            warm = WarmStore(folder, fingerprint(llama.path), parameters, wanted.warm_mb << 20)
        memory = wanted.cache_mb << 20
        # Checkpoints are small and save most; a parked conversation can be hundreds of megabytes.
        store = CheckpointStore(memory // 2 if llama.recurrent else 0)
        parking = ParkingStore(memory - memory // 2 if llama.recurrent else memory)
        slots = Slots(llama, store, parking, warm)
        scheduler = Scheduler(slots)
        log_of_tokens = TokenLog(llama.vocabulary)
        grammars = GrammarCache(llama.vocabulary)
        self._bench = Workbench(slots, llama.chat_template, log_of_tokens, grammars, scheduler.pace)
        self._engine().scheduler = scheduler

    def _free(self) -> None:
        bench, self._bench = self._bench, None
        if self._worker is not None:
            self._worker.scheduler = None
        if bench is not None:
            if bench.slots.warm is not None:
                bench.slots.warm.close()
            bench.slots.llama.close()
