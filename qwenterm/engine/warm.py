"""States of constant prompt beginnings on disk, so that a new process need not evaluate them.

One file for each beginning (system text, tools, instructions), named after a hash of the model,
the parameters that shape its state, and the tokens. A file that is damaged, foreign or cut is
ignored and removed; the oldest go when the folder is over its limit. The content is the user's own
prompt and instructions, so the folder is the user's alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qwenterm.engine.checkpoints import as_tokens
from qwenterm.engine.llama import State
from qwenterm.engine.native import VERSION

log = logging.getLogger("qwenterm.engine")

_MAGIC = b"QTWARM01"
_HEAD = struct.Struct("<8s32sQI")  # magic, key, bytes of the state, their CRC
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16


def fingerprint(path: Path) -> bytes:
    """Return a hash of a model file: its size and 64 samples of 64 KiB spread over it.

    Hashing all of it would take longer than evaluating the prompt that is to be saved.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek(max(0, (size - _SAMPLE_BYTES)) * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.digest()


class WarmStore:
    """The folder of one model's warm states."""

    def __init__(self, folder: Path, model: bytes, parameters: str, budget: int) -> None:
        """`model` is its fingerprint, `parameters` whatever else a state depends on."""
        self._folder = folder
        self._base = hashlib.sha256(model + f"{VERSION} {parameters}".encode()).digest()
        self._budget = budget
        self._writers: list[threading.Thread] = []

    def load(self, tokens: Sequence[int]) -> State | None:
        """Return the state after exactly `tokens`, None if there is no good one."""
        key = self._key(tokens)
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        body = memoryview(data)[_HEAD.size :]
        good = False
        if len(data) >= _HEAD.size:
            magic, named, size, check = _HEAD.unpack_from(data)
            good = (magic, named, size) == (_MAGIC, key, len(body)) and zlib.crc32(body) == check
        if not good:
            log.warning("%s is damaged and is ignored", path)
            self.discard(tokens)
            return None
        return np.frombuffer(body, np.uint8)

    def has(self, tokens: Sequence[int]) -> bool:
        """Return whether there is a file for these tokens."""
        return self._path(self._key(tokens)).is_file()

    def discard(self, tokens: Sequence[int]) -> None:
        """Remove the file of these tokens."""
        with contextlib.suppress(OSError):
            self._path(self._key(tokens)).unlink()

    def save(self, tokens: Sequence[int], state: State) -> None:
        """Write a state in the background; a disk that is full or closed is only logged."""
        writer = threading.Thread(target=self._write, args=(self._key(tokens), state))
        self._writers = [thread for thread in self._writers if thread.is_alive()] + [writer]
        writer.start()

    def close(self) -> None:
        """Wait until everything is written."""
        for thread in self._writers:
            thread.join()

    def _write(self, key: bytes, state: State) -> None:
        path = self._path(key)
        part = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            head = _HEAD.pack(_MAGIC, key, state.nbytes, zlib.crc32(state.data))
            with part.open("xb") as file:
                part.chmod(0o600)
                file.write(head)
                file.write(state.data)
            part.replace(path)
            self._keep_small()
        except OSError as error:
            log.warning("%s is not saved: %s", path, error)
            with contextlib.suppress(OSError):
                part.unlink()

    def _keep_small(self) -> None:
        files = [(path.stat().st_mtime, path) for path in self._folder.glob("*.state")]
        total = 0
        for _, path in sorted(files, reverse=True):
            total += path.stat().st_size
            if total > self._budget:
                path.unlink(missing_ok=True)

    def _key(self, tokens: Sequence[int]) -> bytes:
        return hashlib.sha256(self._base + as_tokens(tokens).tobytes()).digest()

    def _path(self, key: bytes) -> Path:
        return self._folder / f"{key.hex()[:32]}.state"
