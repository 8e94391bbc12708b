"""The host process itself: takes the user's lock, listens, and ends when it is no longer needed.

`run_host` listens on the Unix socket and belongs to no terminal; `run_server` is the same face on
a TCP port, in the foreground, for other programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from qwenterm.host.requests import LoadRequest
from qwenterm.host.resident import ResidentModel
from qwenterm.host.server import build_app

log = logging.getLogger("qwenterm.host")


def run_host(directory: Path, idle_seconds: float) -> int:
    """Serve on `directory`/host.sock until idle for `idle_seconds` or told to stop.

    Returns 0, also when another host of this user is already there: the lock, not the socket
    file, says who serves, so a socket left behind by a killed host is simply replaced.
    """
    lock = (directory / "host.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    path = directory / "host.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(64)
    model = ResidentModel()
    try:
        asyncio.run(_serve(model, listener, idle_seconds, admin=True, guard=False))
    finally:
        path.unlink(missing_ok=True)
        model.close()
        lock.close()
    return 0


def run_server(
    address: str, port: int, wanted: LoadRequest, announce: Callable[[int], None]
) -> int:
    """Load `wanted` and serve on a TCP port until interrupted; port 0 takes a free one.

    `announce` gets the port. Raises OSError when the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(64)
    announce(listener.getsockname()[1])
    model = ResidentModel()
    model.load(wanted)
    loopback = address in ("localhost", "::1") or address.startswith("127.")
    try:
        asyncio.run(_serve(model, listener, 0, admin=False, guard=loopback))
    except KeyboardInterrupt:
        log.info("interrupted")
    finally:
        model.close()
    return 0


async def _serve(
    model: ResidentModel, listener: socket.socket, idle_seconds: float, *, admin: bool, guard: bool
) -> None:
    server: uvicorn.Server | None = None

    def stop() -> None:
        if server is not None:
            server.should_exit = True

    app = build_app(model, stop, admin=admin, guard=guard)
    settings = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(settings)
    watcher = asyncio.create_task(_stop_when_idle(model, idle_seconds, stop))
    try:
        await server.serve(sockets=[listener])
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher


async def _stop_when_idle(
    model: ResidentModel, idle_seconds: float, stop: Callable[[], None]
) -> None:
    if idle_seconds <= 0:
        return
    while model.idle_seconds < idle_seconds:
        await asyncio.sleep(min(5.0, max(0.05, idle_seconds - model.idle_seconds)))
    log.info("idle for %.0f s: ending", model.idle_seconds)
    stop()
