"""Is there memory for what a load asks, and if not, what would fit?

llama.cpp says only that an allocation failed, and on a CPU not even that: the kernel grants the
memory of a huge context and ends the process, or another one, when it is filled. So the plan is
checked before the load, and put into words when an allocation fails all the same.
"""

from __future__ import annotations

from pathlib import Path

from qwenterm.core.errors import UnavailableError
from qwenterm.host.requests import LoadRequest
from qwenterm.models.fit import ModelFacts, choose_context, fits
from qwenterm.models.gguf import check_file
from qwenterm.models.hardware import Hardware, detect

_GIB = 1 << 30


def check_room(wanted: LoadRequest, *, gpu: bool) -> None:
    """Raise `UnavailableError` for a context that this machine's memory cannot hold.

    `gpu`: the layers go to a GPU, whose driver refuses what is too much by itself.
    """
    facts, machine = check_file(Path(wanted.path)), detect()
    context = wanted.n_ctx * facts.kv_bytes_per_token
    # The file is mapped, so its pages can be given back; those of the context cannot.
    if not gpu and context > machine.available_bytes:
        raise shortage(wanted, facts, machine)


def shortage(
    wanted: LoadRequest, facts: ModelFacts | None = None, machine: Hardware | None = None
) -> UnavailableError:
    """Return the error for a load that found too little memory: what was asked, what would fit."""
    path = Path(wanted.path)
    facts, machine = facts or check_file(path), machine or detect()
    context = wanted.n_ctx * facts.kv_bytes_per_token
    free = _gib(machine.available_bytes)
    if machine.gpus and wanted.n_gpu_layers:
        free += f" ({_gib(sum(gpu.free for gpu in machine.gpus))} on the GPU)"
    smaller = choose_context(facts, machine)
    if not fits(facts, machine, smaller).ok:
        advice = "the model is too large for this machine; `qwenterm models list` says which fit"
    elif smaller < wanted.n_ctx:
        advice = f"a context of {smaller:,} tokens would fit: lower `host.context`"
    else:
        advice = "end other programs, or lower `host.context` or `host.n_gpu_layers`"
    return UnavailableError(
        f"{path.name} does not fit in memory: it needs {_gib(facts.bytes)}, and a context of "
        f"{wanted.n_ctx:,} tokens {_gib(context)} more; {free} are free; {advice}"
    )


def _gib(count: float) -> str:
    return f"{count / _GIB:.1f} GiB"
