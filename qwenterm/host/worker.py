"""The one thread that touches the model: runs orders as they come, and the scheduler in between."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from qwenterm.core.errors import UnavailableError
from qwenterm.engine.schedule import Scheduler

log = logging.getLogger("qwenterm.host")


@dataclass(frozen=True)
class _Order:
    run: Callable[[], None]
    alone: bool


class Worker:
    """A thread with orders; `scheduler` is set by an order, once a model is loaded."""

    def __init__(self) -> None:
        self.scheduler: Scheduler | None = None
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        # The engine's thread must not wait 5 ms for the HTTP side after each token.
        sys.setswitchinterval(0.0005)
        self._thread.start()

    def order(self, run: Callable[[], None], *, alone: bool = False) -> None:
        """Have `run` called on the thread; `alone`: once all requests before it have ended."""
        self._orders.put(_Order(run, alone))

    def close(self) -> None:
        """End the thread after the current step; unfinished requests end with an error."""
        self._stopping.set()
        self._orders.put(None)
        self._thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            busy = self.scheduler is not None and self.scheduler.busy
            if busy and self._orders.empty():
                self._step()
                continue
            order = self._orders.get()
            if order is None:
                break
            while order.alone and self.scheduler and self.scheduler.busy:
                if self._stopping.is_set():
                    break
                self._step()
            try:
                order.run()
            except Exception:
                log.exception("an order to the engine failed")
        if self.scheduler is not None:
            self.scheduler.close(UnavailableError("the host is ending"))

    def _step(self) -> None:
        scheduler = self.scheduler
        if scheduler is None:
            return
        try:
            scheduler.step()
        except Exception as error:
            # Whatever it was, nobody must wait for ever.
            log.exception("a step of the engine failed")
            scheduler.close(error)
            scheduler.slots.reset()
