"""The one place where a model is loaded, and the one thread that touches it.

All native calls go through a single worker thread, so requests are served in the order in which
they came and loading cannot overlap with an answer. State is read from the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from qwenterm.core.errors import QwentermError, UnavailableError
from qwenterm.host.deltas import Delta
from qwenterm.host.requests import CompletionRequest, LoadRequest

if TYPE_CHECKING:
    from qwenterm.engine.generate import Context

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


class ModelSlot:
    """Holds at most one loaded model."""

    def __init__(self) -> None:
        self.status = Status()
        self.wanted: LoadRequest | None = None
        self.pending = 0
        self.answered = 0
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._context: Context | None = None
        self._template = ""
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

    def load(self, wanted: LoadRequest) -> None:
        """Begin to load; nothing happens when exactly that is loaded or being loaded."""
        if wanted == self.wanted and self.status.state in ("ready", "loading"):
            return
        self.wanted = wanted
        # The load that is running belongs to nobody any more, so it stops at its next report.
        self._abandoned.set()
        self._abandoned = abandoned = threading.Event()
        self.status = Status("loading")
        self._worker.submit(self._load, wanted, self.status, abandoned)

    def unload(self) -> None:
        """Free the model once the requests before this one are done."""
        self.wanted = None
        self._abandoned.set()
        self.status = Status("empty")
        self._worker.submit(self._free)

    def close(self) -> None:
        """Stop the worker; waiting requests are dropped."""
        self._abandoned.set()
        self._worker.shutdown(wait=True, cancel_futures=True)
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
            loop.call_soon_threadsafe(queue.put_nowait, item)

        def work() -> None:
            try:
                self._complete(request, put, cancelled)
            except BaseException as error:
                put(error)
            else:
                put(None)

        self.pending += 1
        future = self._worker.submit(work)
        try:
            while True:
                item = await queue.get()
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            cancelled.set()
            future.cancel()
            self.pending -= 1
            self.answered += 1
            self._last_active = time.monotonic()

    def _why_not_ready(self) -> str:
        if self.status.state == "loading":
            return f"the model is still loading ({self.status.progress:.0%})"
        if self.status.state == "error":
            return self.status.message
        return "no model is loaded"

    # -- on the worker thread ------------------------------------------------------------------

    def _complete(
        self,
        request: CompletionRequest,
        put: Callable[[Delta], None],
        cancelled: threading.Event,
    ) -> None:
        # Imported here because it loads llama.cpp, which the host does not wait for at its start.
        from qwenterm.engine.generate import CancelledError  # noqa: PLC0415
        from qwenterm.host.completion import Completion  # noqa: PLC0415

        context = self._context
        if context is None:
            raise UnavailableError("no model is loaded")
        if cancelled.is_set():
            return
        try:
            Completion(context, self._template, request, put, cancelled.is_set).run()
        except CancelledError:
            log.info("cancelled")

    def _load(self, wanted: LoadRequest, status: Status, abandoned: threading.Event) -> None:
        self._free()
        started = time.monotonic()
        try:
            from qwenterm.engine.generate import Context  # noqa: PLC0415 - loads llama.cpp
            from qwenterm.engine.llama import (  # noqa: PLC0415
                Llama,
                LoadCancelledError,
                LoadParameters,
            )

            def progress(fraction: float) -> bool:
                status.progress = fraction
                return not abandoned.is_set()

            parameters = LoadParameters(
                wanted.n_ctx, wanted.n_gpu_layers, wanted.threads, wanted.batch
            )
            try:
                llama = Llama(Path(wanted.path), parameters, progress)
            except LoadCancelledError:
                return
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
        self._context, self._template = Context(llama), llama.chat_template
        status.n_ctx, status.n_params, status.size = llama.n_ctx, llama.n_params, llama.size
        status.gpu = llama.gpu
        status.load_seconds = round(time.monotonic() - started, 3)
        self._last_active = time.monotonic()
        # Last, because it tells the other thread that everything above is there.
        status.state = "ready"
        log.info("loaded %s in %.1f s", wanted.path, status.load_seconds)

    def _free(self) -> None:
        if self._context is not None:
            self._context.llama.close()
        self._context = None
