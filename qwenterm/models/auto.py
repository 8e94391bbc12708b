"""Which models `pull` tries when none is named: the best that fits and can be had.

Owns that order: the best model whose hub answers, then the best that comes as wheels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from qwenterm.config import ModelsSettings
from qwenterm.models.catalog import CatalogModel
from qwenterm.models.download import Source, answering
from qwenterm.models.fit import best, fits
from qwenterm.models.hardware import Hardware


def choices(
    models: Sequence[CatalogModel],
    hardware: Hardware,
    settings: ModelsSettings,
    say: Callable[[str], None],
    environ: Mapping[str, str] = os.environ,
) -> list[tuple[CatalogModel, tuple[Source, ...]]]:
    """Return models to try in order, each with the sources to try; at most two.

    Asks the hubs; each one that does not answer is named in one line through `say`.
    """
    plan: list[tuple[CatalogModel, tuple[Source, ...]]] = []
    hubs: tuple[Source, ...] = tuple(name for name in settings.sources if name != "wheels")
    others: tuple[Source, ...] = tuple(name for name in settings.sources if name == "wheels")
    favourite = _favourite([model for model in models if _has(model, hubs)], hardware)
    if favourite:
        answered = answering(favourite, hubs, settings.connect_seconds, say, environ)
        if answered:
            plan.append((favourite, answered + others))
    fallback = _favourite([model for model in models if _has(model, others)], hardware)
    if fallback and not any(model is fallback for model, _sources in plan):
        plan.append((fallback, others))
    return plan


def _has(model: CatalogModel, sources: Sequence[Source]) -> bool:
    return any(getattr(model, source) is not None for source in sources)


def _favourite(models: Sequence[CatalogModel], hardware: Hardware) -> CatalogModel | None:
    """Return the best quick model, else the smallest that fits at all."""
    fitting = [model for model in models if model.quality and fits(model, hardware).ok]
    return best(models, hardware) or min(fitting, key=lambda model: model.bytes, default=None)
