"""Writes small GGUF files for tests, byte by byte from the format's description."""

from __future__ import annotations

import struct
from pathlib import Path

UINT32, STRING, ARRAY = 4, 8, 9


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key: str, value: int | str | list[int] | list[str]) -> bytes:
    if isinstance(value, int):
        return text(key) + struct.pack("<II", UINT32, value)
    if isinstance(value, str):
        return text(key) + struct.pack("<I", STRING) + text(value)
    if all(isinstance(item, int) for item in value):
        head = struct.pack("<IIQ", ARRAY, UINT32, len(value))
        return text(key) + head + struct.pack(f"<{len(value)}I", *value)
    body = b"".join(text(str(item)) for item in value)
    return text(key) + struct.pack("<IIQ", ARRAY, STRING, len(value)) + body


def write_gguf(path: Path, settings: dict, *, tensors: int = 2, elements: int = 64) -> Path:
    """Write a file with that many float32 tensors of `elements` numbers each."""
    head = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(settings))
    head += b"".join(pair(key, value) for key, value in settings.items())
    for number in range(tensors):
        offset = number * elements * 4
        head += text(f"blk.{number}.weight") + struct.pack("<IQIQ", 1, elements, 0, offset)
    head += b"\0" * (-len(head) % 32)
    path.write_bytes(head + b"\1" * (tensors * elements * 4))
    return path


def settings(**changes) -> dict:
    """Settings of a small model of architecture `toy`."""
    values = {
        "general.architecture": "toy",
        "general.name": "A toy",
        "toy.block_count": 4,
        "toy.context_length": 8192,
        "toy.embedding_length": 64,
        "toy.attention.head_count": 4,
        "toy.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": ["a", "b", "c"],
    }
    return {**values, **{key.replace("__", "."): value for key, value in changes.items()}}
