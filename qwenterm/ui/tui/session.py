"""Runs the turns of one conversation, one after another, and hands their events on.

Messages typed while a turn runs wait here. Knows the agent loop and no widget; the widgets know
events and no agent loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from qwenterm.agent.loop import run_turn
from qwenterm.agent.runtime import Runtime
from qwenterm.core.events import Event, TurnEnded

Show = Callable[[Event], Awaitable[None]]


class Session:
    """A conversation: `show` gets its events, `changed` a call when messages wait or no longer."""

    def __init__(self, runtime: Runtime, show: Show, changed: Callable[[], None]) -> None:
        self.runtime = runtime
        self._show = show
        self._changed = changed
        self._waiting: deque[str] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._turn: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a turn runs or is being stopped."""
        return self._worker is not None and not self._worker.done()

    @property
    def waiting(self) -> tuple[str, ...]:
        """The messages that will be sent when the turn is over."""
        return tuple(self._waiting)

    def send(self, prompt: str) -> None:
        """Start a turn, or let the prompt wait for the end of the running one."""
        self._waiting.append(prompt)
        if not self.busy:
            self._worker = asyncio.create_task(self._work())
        self._changed()

    def cancel(self) -> list[str]:
        """Stop the running turn; return the messages that waited, which are not sent."""
        waiting = list(self._waiting)
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()
        self._changed()
        return waiting

    async def stop(self) -> None:
        """Cancel, and wait until the turn has left a conversation that can go on."""
        self.cancel()
        if self._worker is not None:
            await asyncio.wait({self._worker})

    async def clear(self) -> None:
        """Stop, and forget the conversation."""
        await self.stop()
        self.runtime.history.clear()

    async def _work(self) -> None:
        while self._waiting:
            prompt = self._waiting.popleft()
            self._turn = asyncio.create_task(self._run(prompt))
            self._changed()
            await asyncio.wait({self._turn})
            if self._turn.cancelled():
                await self._show(TurnEnded("cancelled"))
            elif error := self._turn.exception():
                # A mistake of the program's own must not take the conversation with it.
                await self._show(TurnEnded("error", error=f"{type(error).__name__}: {error}"))
            self._turn = None
        # The task is not done yet while its last line runs, and `busy` must say so truly.
        asyncio.get_running_loop().call_soon(self._changed)

    async def _run(self, prompt: str) -> None:
        async with aclosing(run_turn(self.runtime, prompt)) as stream:
            async for event in stream:
                await self._show(event)
