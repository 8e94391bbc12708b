"""The model files that qwenterm knows: facts and sources, read from `catalog.toml`.

Owns the record of one catalogue model and the search by id or file name. Nothing here looks at
the disk or the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from qwenterm.core.errors import UsageError

CATALOG_PATH = Path(__file__).with_name("catalog.toml")


@dataclass(frozen=True)
class HubFile:
    """A repository of a model hub and the exact revision to take the file from."""

    repo: str
    revision: str


@dataclass(frozen=True)
class WheelParts:
    """The file cut in `parts` pieces of `part_bytes` bytes, the last one shorter, one a wheel.

    `name` has `{n}` where the number goes, counted from 1.
    """

    name: str
    version: str
    parts: int
    part_bytes: int


@dataclass(frozen=True)
class CatalogModel:
    """One known GGUF file. Sizes in bytes; `auto` goes by `quality`, 0 is never chosen."""

    id: str
    file: str
    bytes: int
    sha256: str
    license: str
    summary: str
    context: int
    kv_bytes_per_token: int
    quality: int
    huggingface: HubFile | None = None
    modelscope: HubFile | None = None
    wheels: WheelParts | None = None

    @property
    def on_hub(self) -> bool:
        """Whether a model hub, and not only the package index, has this file."""
        return self.huggingface is not None or self.modelscope is not None


def load_catalog(path: Path = CATALOG_PATH) -> tuple[CatalogModel, ...]:
    """Return every known model, the most preferred first."""
    entries: list[dict[str, Any]] = tomli.loads(path.read_text(encoding="utf-8"))["model"]
    return tuple(sorted(map(_model, entries), key=lambda model: -model.quality))


def _model(entry: Mapping[str, Any]) -> CatalogModel:
    sources: dict[str, Any] = {
        name: HubFile(**entry[name]) for name in ("huggingface", "modelscope") if name in entry
    }
    if "wheels" in entry:
        sources["wheels"] = WheelParts(**entry["wheels"])
    return CatalogModel(**{**entry, **sources})


def find(model_id: str, catalog: Sequence[CatalogModel] | None = None) -> CatalogModel:
    """Return the model of that id; raises `UsageError` that lists the known ids."""
    models = load_catalog() if catalog is None else catalog
    for model in models:
        if model.id == model_id:
            return model
    known = ", ".join(model.id for model in models)
    raise UsageError(f"no model is called {model_id!r}; the catalogue has: {known}")


def find_by_file(name: str, catalog: Sequence[CatalogModel] | None = None) -> CatalogModel | None:
    """Return the model whose file has that name, or None."""
    models = load_catalog() if catalog is None else catalog
    return next((model for model in models if model.file == name), None)
