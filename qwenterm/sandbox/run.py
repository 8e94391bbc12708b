"""Runs one command in a sandbox and brings back what it printed, bounded in every direction.

Output arrives merged, as a person would see it. A command that goes on printing past the limit is
stopped; one that goes on past its time is too; with it everything that it started.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from qwenterm.core.types import Access
from qwenterm.sandbox import git_guard
from qwenterm.sandbox.backends import Backend
from qwenterm.sandbox.cgroup import make_group
from qwenterm.sandbox.confinement import Confinement, Limits, filtered_environment, set_limits

_CHUNK = 1 << 16
_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class Sandbox:
    """What is the same for every command of a session."""

    backend: Backend
    home: Path
    hidden: tuple[Path, ...] = ()
    limits: Limits = field(default_factory=Limits)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True)
class Completed:
    """A command that is over. `stopped` says why it was stopped, empty if it ended by itself."""

    exit_code: int
    output: str
    seconds: float
    stopped: str = ""
    restored: tuple[str, ...] = ()


async def run(
    sandbox: Sandbox,
    command: Sequence[str],
    *,
    workspace: Path,
    access: Access,
    emit: Callable[[str], None] = lambda _text: None,
    seconds: float | None = None,
    visible: Sequence[Path] = (),
) -> Completed:
    """Run `command` in `workspace`; cancelling ends it and all it started.

    `emit` gets the output as it comes, decoded. The whole output is in the result, never more
    than the limit. Raises OSError when the command line cannot be started at all.
    """
    limits = sandbox.limits if seconds is None else replace(sandbox.limits, seconds=seconds)
    confinement = Confinement(
        workspace, access, sandbox.home, sandbox.hidden, limits, tuple(visible)
    )
    environment = filtered_environment(sandbox.environ, sandbox.home)
    argv = sandbox.backend.arguments(command, confinement, environment)
    writable = access is Access.WORKSPACE
    before = git_guard.remember(workspace) if writable else None
    group = make_group(limits)

    def prepare() -> None:
        group.enter()
        set_limits(limits)

    started = time.monotonic()
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,
            preexec_fn=prepare,
        )
        try:
            output, stopped = await _collect(process, limits, emit)
        finally:
            await _end(process)
    finally:
        group.remove()
        restored = git_guard.restore(workspace, before) if before is not None else []
    code = process.returncode or 0
    return Completed(
        exit_code=code if code >= 0 else 128 - code,
        output=output,
        seconds=time.monotonic() - started,
        stopped=stopped,
        restored=tuple(restored),
    )


def blocked_write(completed: Completed, backend: Backend) -> bool:
    """Tell whether a read-only run wanted to write, from the kernel's words in its output.

    A wrong guess costs one question or one clear error, never a permission.
    """
    signs = [os.strerror(errno.EROFS)]
    if backend.name == "landlock":
        signs.append(os.strerror(errno.EACCES))
    if completed.exit_code:
        return any(sign in completed.output for sign in signs)
    # Without a failure only an error message counts, not a text that happens to quote one.
    lines = completed.output.splitlines()
    return any(line.endswith(f": {sign}") for line in lines for sign in signs)


async def _collect(
    process: asyncio.subprocess.Process, limits: Limits, emit: Callable[[str], None]
) -> tuple[str, str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    parts: list[str] = []
    size = 0
    stream = process.stdout
    if stream is None:
        raise RuntimeError("the process was started without a pipe")
    deadline = time.monotonic() + limits.seconds
    try:
        while chunk := await asyncio.wait_for(stream.read(_CHUNK), deadline - time.monotonic()):
            size += len(chunk)
            text = decoder.decode(chunk)
            parts.append(text)
            emit(text)
            if size >= limits.output_bytes:
                return "".join(parts), f"stopped: it printed over {limits.output_bytes} bytes"
        parts.append(decoder.decode(b"", final=True))
        await asyncio.wait_for(process.wait(), max(0.1, deadline - time.monotonic()))
    except asyncio.TimeoutError:
        return "".join(parts), f"stopped: it ran longer than {limits.seconds:g} s"
    return "".join(parts), ""


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the process and its group if they still run: politely, then not."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), _GRACE_SECONDS)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # Read to the end, so that the pipe is closed here and not by the garbage collector.
    if process.stdout is not None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_drain(process.stdout), 1)


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(_CHUNK):
        pass
