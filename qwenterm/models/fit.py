"""Does a model fit this machine, with how much context, and which model is the best that does?

Owns the memory plan: file + keys and values of the context + what llama.cpp needs besides. The
answers rest on total, not on free memory, so that they do not change while our own host holds the
model; a machine that is busy just now is named in the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from qwenterm.models.hardware import Hardware

GIB = 1 << 30

# What may be used of each kind: the driver and the desktop, or the system and other programs,
# need the rest.
_GPU_SHARE, _RAM_SHARE = 0.92, 0.75
# Compute buffers, recurrent state, the library; on a GPU also the CUDA context (about 0.4 GiB).
_GPU_OVERHEAD, _RAM_OVERHEAD = int(0.9 * GIB), int(0.5 * GIB)
# What one core may have to read for each token: 2 cores decode the 1.1 GB starter at 35 tokens/s,
# so at 0.75 GB a core about 25 tokens/s remain.
_BYTES_PER_CORE = 750_000_000

_SMALLEST_CONTEXT = 4096
# The KV memory is taken at load, and on a CPU nobody waits for a 64k prompt (120 tokens/s).
_LARGEST_CONTEXT = {"gpu": 65536, "cpu": 32768}


class ModelFacts(Protocol):
    """What the plan needs to know of a model: sizes in bytes, context in tokens."""

    @property
    def bytes(self) -> int: ...  # noqa: D102
    @property
    def context(self) -> int: ...  # noqa: D102
    @property
    def kv_bytes_per_token(self) -> int: ...  # noqa: D102


class RankedModel(ModelFacts, Protocol):
    """A model with its place in the order of preference, larger first."""

    @property
    def quality(self) -> int: ...  # noqa: D102


Ranked = TypeVar("Ranked", bound=RankedModel)


@dataclass(frozen=True)
class Fit:
    """Whether a model fits and where it would run.

    `needed_bytes` is memory of that place. `quick` is false where it fits but would answer slowly.
    `reason` is one clause for a person.
    """

    ok: bool
    where: Literal["gpu", "cpu"]
    needed_bytes: int
    reason: str
    quick: bool = True


def fits(model: ModelFacts, hardware: Hardware, n_ctx: int = 8192) -> Fit:
    """Say whether `model` fits with a context of `n_ctx` tokens: on the GPUs, else in memory."""
    context_bytes = min(n_ctx, model.context or n_ctx) * model.kv_bytes_per_token
    on_gpu = model.bytes + context_bytes + _GPU_OVERHEAD * max(len(hardware.gpus), 1)
    if hardware.gpus and hardware.offload and on_gpu <= _gpu_bytes(hardware):
        free = sum(gpu.free for gpu in hardware.gpus)
        busy = f", of which {_gib(free)} are free now" if free < on_gpu else ""
        reason = f"{_gib(on_gpu)} of {_gib(_gpu_total(hardware))} GPU memory{busy}"
        return Fit(True, "gpu", on_gpu, reason)
    on_cpu = model.bytes + context_bytes + _RAM_OVERHEAD
    why_not_gpu = ""
    if hardware.gpus and not hardware.offload:
        why_not_gpu = "; the installed llama.cpp has no GPU support"
    if on_cpu > hardware.ram_bytes * _RAM_SHARE:
        reason = f"needs {_gib(on_cpu)}, too much for {_gib(hardware.ram_bytes)} of memory"
        return Fit(False, "cpu", on_cpu, reason + why_not_gpu, quick=False)
    busy = ""
    if on_cpu > hardware.available_bytes:
        busy = f", of which {_gib(hardware.available_bytes)} are free now"
    quick = model.bytes <= hardware.cpu_count * _BYTES_PER_CORE
    slow = "" if quick else f"; slow on {hardware.cpu_count} cores"
    reason = f"{_gib(on_cpu)} of {_gib(hardware.ram_bytes)} memory{busy}{slow}{why_not_gpu}"
    return Fit(True, "cpu", on_cpu, reason, quick=quick)


def choose_context(model: ModelFacts, hardware: Hardware) -> int:
    """Return the largest context, in tokens, that fits where the model with a small one would run.

    Powers of two, at most what the model was trained for; at least 4096 (or the model's own).
    """
    smallest = min(_SMALLEST_CONTEXT, model.context or _SMALLEST_CONTEXT)
    where = fits(model, hardware, smallest).where
    most = min(_LARGEST_CONTEXT[where], model.context or _SMALLEST_CONTEXT)
    chosen = smallest
    while chosen * 2 <= most:
        plan = fits(model, hardware, chosen * 2)
        if not plan.ok or plan.where != where:
            break
        chosen *= 2
    return chosen


def best(models: Iterable[Ranked], hardware: Hardware) -> Ranked | None:
    """Return the most preferred model that fits and is quick, None if there is none.

    Models of quality 0 are not for choosing by themselves.
    """
    plans = [(model, fits(model, hardware)) for model in models if model.quality]
    quick = [model for model, plan in plans if plan.ok and plan.quick]
    return max(quick, key=lambda model: model.quality, default=None)


def _gpu_total(hardware: Hardware) -> int:
    return sum(gpu.total for gpu in hardware.gpus)


def _gpu_bytes(hardware: Hardware) -> float:
    return _gpu_total(hardware) * _GPU_SHARE


def _gib(count: float) -> str:
    return f"{count / GIB:.1f} GiB"
