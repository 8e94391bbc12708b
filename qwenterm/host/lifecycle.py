"""Starting, finding and stopping the resident host, seen from the client's side.

Light on purpose: every one-shot query goes through here. The host lives on a Unix socket in a
directory that only its user can enter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from qwenterm import __version__
from qwenterm.core.errors import UnavailableError
from qwenterm.core.http import httpx

START_SECONDS = 30.0
# A socket's path may have 107 bytes on Linux; long temporary folders must fail clearly.
_MAX_SOCKET_PATH = 100


@dataclass(frozen=True)
class Wanted:
    """What the host should have loaded: a file, context in tokens, GPU layers, threads, chunk.

    `sequences` conversations may be in the context at once. `cache_mb` bounds the states kept in
    memory, `warm_mb` those in `warm_folder` on disk.

    `pinned`: the user named this context size, so a loaded model with another one is loaded anew;
    otherwise a size that was chosen to fit the memory of the moment stays.
    """

    path: str
    n_ctx: int
    n_gpu_layers: int = -1
    threads: int = 0
    batch: int = 0
    sequences: int = 4
    cache_mb: int = 1024
    warm_folder: str = ""
    warm_mb: int = 0
    pinned: bool = False


def runtime_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the private directory of the socket, made if need be.

    Raises `UnavailableError` when somebody else could reach into it.
    """
    base = environ.get("QWENTERM_RUNTIME_DIR")
    if base:
        path = Path(base)
    elif environ.get("XDG_RUNTIME_DIR"):
        path = Path(environ["XDG_RUNTIME_DIR"]) / "qwenterm"
    else:
        path = Path(tempfile.gettempdir()) / f"qwenterm-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.lstat()
    except OSError as error:
        raise UnavailableError(f"{path}: no directory for the host's socket: {error}") from None
    private = stat.S_ISDIR(facts.st_mode) and not facts.st_mode & 0o077
    if not private or facts.st_uid != os.getuid():
        raise UnavailableError(
            f"{path}: must be a directory of yours with mode 0700; remove it, or set "
            "QWENTERM_RUNTIME_DIR to another one"
        )
    if len(str(path)) > _MAX_SOCKET_PATH:
        raise UnavailableError(
            f"{path}: too long for a socket; set QWENTERM_RUNTIME_DIR to a shorter path"
        )
    return path


def socket_path(directory: Path) -> Path:
    """Return the host's socket in its directory."""
    return directory / "host.sock"


async def status(directory: Path) -> dict[str, Any] | None:
    """Return what a running host says of itself, None if there is none."""
    return await _call(directory, "GET", "/admin/status")


async def stop(directory: Path, *, seconds: float = 10) -> bool:
    """Ask the host to end and wait until it has; False if there was none.

    Raises `UnavailableError` when it does not end in time.
    """
    if await _call(directory, "POST", "/admin/stop") is None:
        return False
    deadline = time.monotonic() + seconds
    while socket_path(directory).exists():
        if time.monotonic() > deadline:
            raise UnavailableError("the host does not end; `qwenterm host status` names its pid")
        await asyncio.sleep(0.05)
    return True


async def ensure(
    wanted: Wanted,
    *,
    directory: Path,
    log: Path,
    idle_seconds: float,
    progress: Callable[[float], None],
) -> Path:
    """Return the socket of a host that has `wanted` loaded; start or reload it if need be.

    `progress` gets 0..1 while the model is loading. Raises `UnavailableError` with the reason
    when the host cannot start or the model cannot be loaded.
    """
    facts = await status(directory)
    if facts is not None and facts["version"] != __version__:
        await stop(directory)
        facts = None
    if facts is None:
        facts = await _answering(directory, _spawn(directory, log, idle_seconds), log)
    asked = False
    while True:
        if not asked and not (facts["state"] == "ready" and _same(facts, wanted)):
            body = asdict(wanted)
            del body["pinned"]
            await _call(directory, "POST", "/admin/load", body)
        asked = True
        facts = await status(directory)
        if facts is None:
            raise UnavailableError(f"the host ended while loading the model{_tail(log)}")
        if facts["state"] == "ready" and _same(facts, wanted):
            return socket_path(directory)
        if facts["state"] == "error":
            raise UnavailableError(str(facts["message"]))
        progress(float(facts["progress"]))
        await asyncio.sleep(0.1)


def _same(facts: Mapping[str, Any], wanted: Wanted) -> bool:
    if facts["path"] != wanted.path:
        return False
    return not wanted.pinned or facts["n_ctx"] == wanted.n_ctx


def _spawn(directory: Path, log: Path, idle_seconds: float) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "qwenterm.host",
        "--directory",
        str(directory),
        "--idle-seconds",
        str(idle_seconds),
    ]
    # Appended, so that the reason of a crash is still there after the restart.
    _keep_small(log)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )


async def _answering(
    directory: Path, process: subprocess.Popen[bytes], log: Path
) -> dict[str, Any]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        facts = await status(directory)
        if facts is not None:
            return facts
        # Ended with 0: another host won the race for the lock and will answer soon.
        if process.poll() not in (None, 0):
            raise UnavailableError(f"the host could not start{_tail(log)}")
        await asyncio.sleep(0.03)
    raise UnavailableError(f"the host did not start within {START_SECONDS:.0f} s{_tail(log)}")


def _keep_small(log: Path, limit: int = 4 * 1024 * 1024) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > limit:
            log.replace(log.with_suffix(".old"))


def _tail(log: Path) -> str:
    """Return the log's last line in words for an error, empty if there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f"; its log ends with: {lines[-1][:300]}" if lines else ""


async def _call(
    directory: Path, method: str, path: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Return the host's answer, None when nobody listens."""
    # A Unix socket needs no certificates, and loading them takes 75 ms each time.
    transport = httpx.AsyncHTTPTransport(uds=str(socket_path(directory)), verify=False)
    async with httpx.AsyncClient(transport=transport, timeout=10, trust_env=False) as client:
        try:
            response = await client.request(method, f"http://host{path}", json=body)
        except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
            return None
        except httpx.HTTPError as error:
            raise UnavailableError(f"the host does not answer: {error}") from None
    if response.status_code >= 400:
        raise UnavailableError(f"the host refuses {path}: {response.text[:300]}")
    return cast("dict[str, Any]", response.json())
