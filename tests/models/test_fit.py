"""The memory plan: `auto` must choose what a person with that machine would."""

import pytest

from qwenterm.models.catalog import find, load_catalog
from qwenterm.models.fit import best, choose_context, fits
from qwenterm.models.hardware import Gpu, Hardware

GIB = 1 << 30


def machine(ram: int, gpus: tuple[int, ...] = (), cpus: int = 8, **more) -> Hardware:
    cards = tuple(Gpu("card", size * GIB, size * GIB) for size in gpus)
    return Hardware(ram * GIB, ram * GIB, cards, cpus, **more)


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        (machine(64, (24,)), "qwen3.5-9b"),
        (machine(16, (8,)), "qwen3.5-9b"),
        (machine(8, (6,), cpus=4), "qwen3.5-4b"),
        (machine(16, (3, 3), cpus=4), "qwen3.5-4b"),
        (machine(24, cpus=2), "qwen3.5-2b"),
        (machine(32, cpus=16), "qwen3.5-9b"),
        (machine(2, cpus=1), "qwen3.5-0.8b"),
    ],
)
def test_the_best_model_for_a_machine(hardware, expected):
    assert best(load_catalog(), hardware).id == expected


def test_nothing_is_chosen_where_nothing_fits():
    assert best(load_catalog(), machine(1)) is None


def test_a_gpu_counts_only_if_llama_cpp_can_use_it():
    """A plan for GPU memory would run on the CPU with a context that does not fit there."""
    starter = find("starter")
    assert fits(starter, machine(16, (24,))).where == "gpu"
    plan = fits(starter, machine(16, (24,), offload=False))
    assert plan.where == "cpu"
    assert "no GPU support" in plan.reason


def test_the_reason_names_what_is_needed_and_what_there_is():
    plan = fits(find("qwen3.5-9b"), machine(4))
    assert not plan.ok
    assert "needs 6.0 GiB" in plan.reason and "4.0 GiB of memory" in plan.reason
    slow = fits(find("qwen3.5-9b"), machine(24, cpus=2))
    assert slow.ok and not slow.quick and "slow on 2 cores" in slow.reason


def test_a_busy_machine_is_named_but_does_not_change_the_choice():
    """Our own host holds the memory: the answer must not change when it is asked again."""
    idle = Hardware(16 * GIB, 16 * GIB, (Gpu("card", 8 * GIB, 8 * GIB),), 8)
    busy = Hardware(16 * GIB, GIB, (Gpu("card", 8 * GIB, GIB // 2),), 8)
    nine = find("qwen3.5-9b")
    assert fits(nine, busy).ok
    assert "0.5 GiB are free now" in fits(nine, busy).reason
    assert choose_context(nine, idle) == choose_context(nine, busy)
    assert best(load_catalog(), idle) == best(load_catalog(), busy)


def test_the_context_is_the_largest_that_fits():
    nine, starter = find("qwen3.5-9b"), find("starter")
    for hardware in (machine(16, (8,)), machine(64, (24,)), machine(24), machine(3)):
        for model in (nine, starter):
            chosen = choose_context(model, hardware)
            assert 4096 <= chosen <= min(model.context, 65536)
    assert choose_context(starter, machine(64, (24,))) == 32768  # not more than it was trained for
    assert choose_context(nine, machine(16, (8,))) == 32768
    assert choose_context(nine, machine(64, (24,))) == 65536
    assert choose_context(starter, machine(2)) == 4096
