"""A model file while it is being fetched: appended to, kept over a kill, checked, put in place.

Owns the `.part` file and the lock that lets one process at a time work on it. Where the bytes
come from is the business of `hub` and `wheels`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from qwenterm.core.errors import UnavailableError

_BLOCK = 1 << 20


class SourceError(Exception):
    """This source cannot deliver the file; the next one may. The message is one clause."""


class Partial:
    """An open `.part` file of a model of `total` bytes; use it in a `with` statement.

    What is appended is written through to the system at once, so a kill loses nothing that
    `length` has counted.
    """

    def __init__(self, path: Path, total: int) -> None:
        self.path = path
        self.total = total
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise UnavailableError(f"{path} cannot be written: {error.strerror}") from None

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def length(self) -> int:
        """The bytes that are there."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def missing(self) -> int:
        """The bytes that are still to come."""
        return self.total - self.length

    def truncate(self, length: int) -> None:
        """Drop what is beyond `length`; nothing happens if the file is not longer."""
        if self.length > length:
            os.ftruncate(self._file.fileno(), length)

    def append(self, chunk: bytes) -> None:
        """Write at the end.

        Raises `SourceError` for bytes beyond the total and `UnavailableError` for a full disk;
        in both cases what is there stays.
        """
        if len(chunk) > self.missing:
            raise SourceError(f"sends more than the {self.total:,} bytes that the file has")
        view = memoryview(chunk)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise UnavailableError(self._write_error(error)) from None

    def sync(self) -> None:
        """Have the system put the bytes on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UnavailableError(self._write_error(error)) from None

    def _write_error(self, error: OSError) -> str:
        folder = self.path.parent
        if error.errno == errno.EFBIG:
            return f"{folder} cannot hold a file of {self.total:,} bytes (file system or ulimit -f)"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"no room left in {folder}: {self.missing:,} bytes are still to come;"
                " what has arrived is kept, make room and pull again"
            )
        return f"{self.path} cannot be written: {error.strerror}; what has arrived is kept"


def partial_path(target: Path) -> Path:
    """Return where the file is while it is incomplete."""
    return target.with_name(f"{target.name}.part")


def scratch_path(target: Path) -> Path:
    """Return the folder for what a source needs on the way to the file."""
    return target.with_name(f"{target.name}.scratch")


def lock_path(target: Path) -> Path:
    """Return the lock file that goes with a model file."""
    return target.with_name(f".{target.name}.lock")


def put_in_place(part: Path, target: Path, sha256: str) -> None:
    """Check the hash of a complete `part` and rename it to `target` in one step.

    Raises `UnavailableError` after removing `part` if the hash is another.
    """
    found = sha256_of(part)
    if found != sha256:
        part.unlink()
        raise UnavailableError(
            f"{target.name} arrived with the wrong content: its SHA-256 is {found}, it should be"
            f" {sha256}. What was fetched has been removed; pull again"
        )
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def exclusive(path: Path, waiting: Callable[[], None]) -> Generator[None]:
    """Hold the lock file `path`; call `waiting` once if another process has it, then wait.

    The lock ends with the process, however it ends. The empty file stays: removing it would let
    two processes hold locks on two files of one name.
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
