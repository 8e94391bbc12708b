"""From the `model` setting to a file that can be loaded, with the context it gets.

Owns the meaning of `auto`, of a catalogue id and of a path. Nothing is fetched and no hub is
asked here: it runs whenever the host is about to load.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qwenterm.config import Config, models_directory
from qwenterm.core.errors import UnavailableError, UsageError
from qwenterm.models.catalog import CatalogModel, load_catalog
from qwenterm.models.fit import best, choose_context, fits
from qwenterm.models.gguf import check_file
from qwenterm.models.hardware import Hardware, detect
from qwenterm.models.partial import partial_path

DiskState = Literal["yes", "no", "partial", "damaged"]


@dataclass(frozen=True)
class ResolvedModel:
    """A checked model file; `id` is the catalogue's, or the file's stem; `n_ctx` is in tokens."""

    path: Path
    id: str
    n_ctx: int
    size: int


def usable_hardware(config: Config) -> Hardware:
    """Return this machine's facts, without GPUs where the configuration keeps them out."""
    hardware = detect()
    return dataclasses.replace(hardware, gpus=()) if config.host.n_gpu_layers == 0 else hardware


def disk_state(model: CatalogModel, directory: Path) -> DiskState:
    """Say whether the file of a catalogue model is on disk; size tells, the hash was checked."""
    path = directory / model.file
    if path.is_file():
        return "yes" if path.stat().st_size == model.bytes else "damaged"
    return "partial" if partial_path(path).is_file() else "no"


def resolve(
    config: Config,
    *,
    say: Callable[[str], None] = lambda _line: None,
    environ: Mapping[str, str] = os.environ,
    catalog: Sequence[CatalogModel] | None = None,
    hardware: Hardware | None = None,
) -> ResolvedModel:
    """Return the model that the configuration means, checked and with its context length.

    `say` gets one line for each doubt (it may not fit, the context was lowered). `catalog` and
    `hardware` default to the real ones. Raises `UnavailableError` if the file is missing or
    damaged, `UsageError` if the setting means nothing.
    """
    models = load_catalog() if catalog is None else catalog
    machine = usable_hardware(config) if hardware is None else hardware
    path, name = locate(config, models, machine, environ)
    facts = check_file(path)
    plan = fits(facts, machine)
    if not plan.ok:
        say(f"{name} may not fit this machine: it {plan.reason}")
    n_ctx = config.host.context or choose_context(facts, machine)
    if facts.context and n_ctx > facts.context:
        say(f"context lowered from {n_ctx} to the {facts.context} tokens that {name} was made for")
        n_ctx = facts.context
    return ResolvedModel(path=path, id=name, n_ctx=n_ctx, size=facts.size)


def locate(
    config: Config,
    models: Sequence[CatalogModel],
    hardware: Hardware,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Path, str]:
    """Return path and id of the file that `config.model` means; raises as `resolve` does."""
    directory = models_directory(config, environ)
    wanted = config.model
    if wanted == "auto":
        model = _auto(models, directory, hardware)
        return _catalogue_file(model, directory), model.id
    for model in models:
        if model.id == wanted:
            return _catalogue_file(model, directory), model.id
    if not (wanted.endswith(".gguf") or os.sep in wanted):
        known = ", ".join(model.id for model in models)
        raise UsageError(
            f"setting `model`: {wanted!r} is neither `auto`, nor a known model ({known}),"
            " nor the path of a GGUF file"
        )
    path = Path(wanted).expanduser()
    if not path.exists() and (directory / wanted).is_file():
        path = directory / wanted
    return path.absolute(), path.stem


def _auto(models: Sequence[CatalogModel], directory: Path, hardware: Hardware) -> CatalogModel:
    """Return the best model on disk, a damaged one included: that is for its owner to know."""
    present = [model for model in models if disk_state(model, directory) in ("yes", "damaged")]
    model = best(present, hardware) or max(
        (model for model in present if model.quality and fits(model, hardware).ok),
        key=lambda model: -model.bytes,
        default=None,
    )
    if model is None:
        what = "no model on disk fits this machine" if present else "there is no model on disk"
        raise UnavailableError(f"{what}; `qwenterm models pull` fetches one")
    return model


def _catalogue_file(model: CatalogModel, directory: Path) -> Path:
    path = directory / model.file
    remedy = f"`qwenterm models pull {model.id}` fetches it"
    match disk_state(model, directory):
        case "yes":
            return path
        case "damaged":
            raise UnavailableError(
                f"model file {path} has {path.stat().st_size:,} bytes instead of {model.bytes:,};"
                f" {remedy}"
            )
        case "partial":
            raise UnavailableError(f"{model.id} has not been fetched completely; {remedy}")
        case "no":
            raise UnavailableError(f"{model.id} is not on disk; {remedy}")
