"""Reads the head of a GGUF file: is it whole, and what model is in it?

Owns the format's parsing, without llama.cpp: a damaged or cut file is refused by name and size
before a native library touches it. Every count in the file is checked against the bytes that are
there. Format: the GGUF specification in ggml's docs (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from qwenterm.core.errors import UnavailableError
from qwenterm.models.catalog import find_by_file

Scalar = int | float | bool | str
Value = Scalar | list[int]

_SCALARS: dict[int, str] = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEEP_ARRAY = 1024  # per-layer integers are wanted, vocabularies are not
# Limits that no real model comes near; they bound the time that a hostile file can take.
_MAX_STRING_KEPT = 1 << 16
_MAX_PAIRS = 1 << 14
_MAX_TENSORS = 1 << 18
_MAX_STRINGS = 1 << 23

# ggml type -> (elements in a block, bytes of a block)
_BLOCKS = {
    kind: (elements, size)
    for elements, sizes in (
        (1, {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2}),
        (32, {2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 9: 36, 20: 18, 39: 17}),
        (64, {40: 36}),
        (256, {10: 84, 11: 110, 12: 144, 13: 176, 14: 210, 15: 292, 16: 66, 17: 74, 18: 98}),
        (256, {19: 50, 21: 110, 22: 82, 23: 136, 29: 56, 34: 54, 35: 66}),
    )
    for kind, size in sizes.items()
}


class _DamagedError(Exception):
    """The bytes are not what the format says."""


class _CutError(_DamagedError):
    """The file ends before something that its head announces: at `end`, if that could be read."""

    def __init__(self, end: int = 0) -> None:
        super().__init__("is cut short")
        self.end = end


@dataclass(frozen=True)
class GgufFacts:
    """What a GGUF file says of itself. Sizes in bytes, `context_length` in tokens.

    `kv_bytes_per_token` is the f16 key and value memory of one token over all attention layers;
    0 if the file does not tell.
    """

    path: Path
    size: int
    architecture: str
    name: str
    context_length: int
    block_count: int
    tensor_count: int
    kv_bytes_per_token: int

    @property
    def bytes(self) -> int:
        """The size, under the name that the memory plan uses."""
        return self.size

    @property
    def context(self) -> int:
        """The trained context, under the name that the memory plan uses."""
        return self.context_length


def check_file(path: Path) -> GgufFacts:
    """Return the facts of a whole GGUF file.

    Raises `UnavailableError` if it is missing, unreadable, not GGUF, damaged or cut; the message
    names the file, its size, the size it should have, and what to do.
    """
    known = find_by_file(path.name)
    remedy = f"`qwenterm models pull {known.id}` fetches it" if known else "fetch it again"
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            advice = remedy if known else "`qwenterm models list` shows what can be had"
            raise UnavailableError(f"model file {path} {what}; {advice}")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise _DamagedError("does not begin as a GGUF file does")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).facts(path)
    except _CutError as error:
        full = error.end or (known.bytes if known else 0)
        rest = f" instead of {full:,}" if full else ", less than its own head announces"
        raise UnavailableError(
            f"model file {path} is cut short: it has {path.stat().st_size:,} bytes{rest}; {remedy}"
        ) from None
    except _DamagedError as error:
        raise UnavailableError(
            f"{path} ({path.stat().st_size:,} bytes) is not a usable model file: it {error};"
            f" {remedy}"
        ) from None
    except OSError as error:
        raise UnavailableError(f"model file {path} cannot be read: {error.strerror}") from None


class _Reader:
    """A cursor over the mapped file; every step is checked against the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.size = len(data)
        self.position = 4

    def facts(self, path: Path) -> GgufFacts:
        version = self.number("I")
        if version not in (2, 3):
            raise _DamagedError(f"has GGUF version {version & 0xFFFF}, known are 2 and 3")
        tensors, pairs = self.number("Q"), self.number("Q")
        if tensors > _MAX_TENSORS or pairs > _MAX_PAIRS:
            raise _DamagedError(f"announces {tensors:,} tensors and {pairs:,} settings")
        values: dict[str, Value] = {}
        for _ in range(pairs):
            key = self.string()
            value = self.value(self.number("I"))
            if value is not None:
                values[key] = value
        architecture = _text(values, "general.architecture")
        if not tensors or not architecture:
            raise _DamagedError("holds no weights" if architecture else "names no architecture")
        end = self.tensor_end(tensors, _integer(values, "general.alignment", 32))
        if end > self.size:
            raise _CutError(end)
        return GgufFacts(
            path=path,
            size=self.size,
            architecture=architecture,
            name=_text(values, "general.name"),
            context_length=_integer(values, f"{architecture}.context_length"),
            block_count=_integer(values, f"{architecture}.block_count"),
            tensor_count=tensors,
            kv_bytes_per_token=_kv_bytes(values, architecture),
        )

    def take(self, count: int) -> int:
        """Step over `count` bytes; return where they began."""
        start = self.position
        if count > self.size - start:
            raise _CutError
        self.position = start + count
        return start

    def number(self, code: str) -> int:
        start = self.take(struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{code}", self.data, start)[0]

    def string(self) -> str:
        length = self.number("Q")
        start = self.take(length)
        return self.data[start : start + min(length, _MAX_STRING_KEPT)].decode("utf-8", "replace")

    def value(self, kind: int) -> Value | None:
        """Read one value; None for an array that is not kept."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(self.number("I"), self.number("Q"))
        return self.number(_code(kind))

    def array(self, kind: int, count: int) -> list[int] | None:
        if kind == _STRING:
            self.skip_strings(count)
            return None
        code = _code(kind)
        start = self.take(count * struct.calcsize(f"<{code}"))
        if count > _KEEP_ARRAY or code not in "BbHhIiQq?":
            return None
        return list(struct.unpack_from(f"<{count}{code}", self.data, start))

    def skip_strings(self, count: int) -> None:
        """Step over `count` strings: 300,000 of them are walked, so the loop stays bare."""
        if count > _MAX_STRINGS:
            raise _DamagedError(f"announces a list of {count:,} strings")
        data, position, unpack = self.data, self.position, struct.Struct("<Q").unpack_from
        try:
            for _ in range(count):
                position += unpack(data, position)[0] + 8
        except (struct.error, IndexError, OverflowError):  # a length that leads past the end
            raise _CutError from None
        self.position = position
        self.take(0)

    def tensor_end(self, count: int, alignment: int) -> int:
        """Read the tensor entries; return the offset in the file where the last one ends."""
        if not 0 < alignment <= 1 << 20:
            raise _DamagedError(f"asks for an alignment of {alignment}")
        end = 0
        for _ in range(count):
            self.string()
            dimensions = self.number("I")
            if dimensions > 4:
                raise _DamagedError(f"has a tensor of {dimensions} dimensions")
            elements = 1
            for _ in range(dimensions):
                elements *= self.number("Q")
            # A type newer than this table counts as empty: the end is then a lower bound.
            block, size = _BLOCKS.get(self.number("I"), (1, 0))
            end = max(end, self.number("Q") + elements // block * size)
        return -(-self.position // alignment) * alignment + end


def _code(kind: int) -> str:
    code = _SCALARS.get(kind)
    if code is None:
        raise _DamagedError(f"has a value of unknown type {kind}")
    return code


def _text(values: dict[str, Value], key: str) -> str:
    value = values.get(key, "")
    # The file is not trusted: what reaches a terminal from it is printable.
    return "".join(filter(str.isprintable, value)) if isinstance(value, str) else ""


def _integer(values: dict[str, Value], key: str, default: int = 0) -> int:
    value = values.get(key, default)
    return max(value, 0) if isinstance(value, int) else default


def _kv_bytes(values: dict[str, Value], architecture: str) -> int:
    """Sum KV heads over the layers that attend, times key and value size, at 2 bytes each."""
    layers = _integer(values, f"{architecture}.block_count")
    interval = _integer(values, f"{architecture}.full_attention_interval", 1) or 1
    heads = _integer(values, f"{architecture}.attention.head_count")
    width = _integer(values, f"{architecture}.embedding_length") // heads if heads else 0
    key = _integer(values, f"{architecture}.attention.key_length", width)
    value = _integer(values, f"{architecture}.attention.value_length", width)
    per_layer = values.get(f"{architecture}.attention.head_count_kv")
    if isinstance(per_layer, list):  # one number a layer, 0 where the layer does not attend
        total = sum(count for count in per_layer if count > 0)
    else:
        kv_heads = _integer(values, f"{architecture}.attention.head_count_kv", heads)
        total = layers // interval * kv_heads
    return total * (key + value) * 2
