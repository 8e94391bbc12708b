"""The state after the constant beginning of prompts, saved for the next process."""

import stat

import pytest

from qwenterm.engine.warm import WarmStore, fingerprint
from tests.engine.test_checkpoints import words
from tests.stubs.bench import Bench


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "prompts"


def fresh(llama, folder, *, model=b"m", budget=1 << 30):
    """Return a bench as a new process would have it."""
    llama.forget_all()
    return Bench(llama, warm=WarmStore(folder, model, "", budget))


def run(bench, prompt, count=0):
    job = bench.run(prompt, count, stable=200)
    bench.slots.warm.close()
    return job


def test_a_new_process_does_not_evaluate_the_beginning_again(hybrid_llama, folder):
    prompt = words(None, 230, 1)
    first = run(fresh(hybrid_llama, folder), prompt, 10)
    assert first.cached == 0
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    other = prompt[:200] + words(None, 30, 2)
    second = run(fresh(hybrid_llama, folder), other, 10)
    assert second.cached == 200
    hybrid_llama.forget_all()
    assert Bench(hybrid_llama).run(other, 10, marks=(200,)).tokens == second.tokens


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_file_is_ignored_and_written_anew(hybrid_llama, folder, damage):
    """llama.cpp would take the bytes for a state, or end the process."""
    prompt = words(None, 230, 1)
    run(fresh(hybrid_llama, folder), prompt)
    (path,) = folder.iterdir()
    good = path.read_bytes()
    half = len(good) // 2
    path.write_bytes(
        {
            "flip": good[:half] + bytes([good[half] ^ 1]) + good[half + 1 :],
            "cut": good[:half],
            "empty": b"",
            "foreign": b"something else entirely" * 100,
        }[damage]
    )
    assert run(fresh(hybrid_llama, folder), prompt).cached == 0
    assert path.read_bytes() == good


def test_another_model_does_not_read_it(hybrid_llama, folder):
    prompt = words(None, 230, 1)
    run(fresh(hybrid_llama, folder), prompt)
    assert run(fresh(hybrid_llama, folder, model=b"other"), prompt).cached == 0
    assert len(list(folder.iterdir())) == 2


def test_the_folder_stays_within_its_limit(hybrid_llama, folder):
    run(fresh(hybrid_llama, folder), words(None, 230, 1))
    size = next(folder.iterdir()).stat().st_size
    for seed in range(2, 6):
        run(fresh(hybrid_llama, folder, budget=2 * size + 10), words(None, 230, seed))
    assert len(list(folder.iterdir())) == 2


def test_a_folder_that_cannot_be_written_changes_nothing(hybrid_llama, tmp_path):
    folder = tmp_path / "file"
    folder.write_text("not a folder")
    assert len(run(fresh(hybrid_llama, folder), words(None, 230, 1), 5).tokens) == 5


def test_the_fingerprint_differs_between_models_of_one_size(tmp_path):
    path = tmp_path / "model"
    seen = set()
    for seed in range(3):
        path.write_bytes(bytes([seed]) * 9_000_000)
        seen.add(fingerprint(path))
    path.write_bytes(bytes(9_000_001))
    assert len({*seen, fingerprint(path)}) == 4
