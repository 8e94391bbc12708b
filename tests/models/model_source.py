"""A small made-up catalogue model, and the wheels that carry it."""

from __future__ import annotations

import hashlib
import random
import zipfile
from pathlib import Path

from qwenterm.models.catalog import CatalogModel, HubFile, WheelParts

PART_BYTES = 300_000


def content(size: int = 1_000_000, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def model(data: bytes, **changes) -> CatalogModel:
    values = {
        "id": "small",
        "file": "small.gguf",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "license": "Apache-2.0",
        "summary": "made up",
        "context": 8192,
        "kv_bytes_per_token": 1024,
        "quality": 50,
        "huggingface": HubFile("some/repo", "abc123"),
        "modelscope": HubFile("other/repo", "def456"),
        "wheels": WheelParts(
            name="small-model-part{n}",
            version="1.0",
            parts=-(-len(data) // PART_BYTES),
            part_bytes=PART_BYTES,
        ),
    }
    return CatalogModel(**{**values, **changes})


def write_wheels(folder: Path, data: bytes, only: set[int] | None = None) -> Path:
    """Write one wheel for each part of `data` (or for the parts in `only`)."""
    folder.mkdir(exist_ok=True)
    for number, start in enumerate(range(0, len(data), PART_BYTES), start=1):
        if only is None or number in only:
            write_wheel(folder, number, {f"part{number:02}.bin": data[start : start + PART_BYTES]})
    return folder


def write_wheel(folder: Path, number: int, files: dict[str, bytes]) -> Path:
    package = f"small_model_part{number}"
    info = f"{package}-1.0.dist-info"
    members = {
        f"{package}/__init__.py": b"raise SystemExit('a model wheel must not be imported')\n",
        **{f"{package}/data/{name}": data for name, data in files.items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        record = "".join(f"{name},,\n" for name in [*members, f"{info}/RECORD"])
        archive.writestr(f"{info}/RECORD", record)
    return path
