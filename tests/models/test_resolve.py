"""What `model = ...` in the configuration leads to: the file that is loaded, or a remedy."""

import dataclasses

import pytest
from gguf_writer import settings, write_gguf
from model_source import model

from qwenterm.config import Config, HostSettings, ModelsSettings
from qwenterm.core.errors import UnavailableError, UsageError
from qwenterm.models.hardware import Gpu, Hardware
from qwenterm.models.resolve import disk_state, resolve

GIB = 1 << 30
LARGE = Hardware(16 * GIB, 16 * GIB, (), 8)
SMALL = Hardware(GIB, GIB, (), 1)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def catalog(folder):
    """Two models of the same bytes: `good` is preferred, `plain` comes after; `toy` never."""
    data = write_gguf(folder / "data", settings()).read_bytes()
    (folder / "data").unlink()
    ranks = {"good": 90, "plain": 50, "toy": 0}
    return tuple(model(data, id=key, file=f"{key}.gguf", quality=ranks[key]) for key in ranks)


def put(folder, *names):
    return [write_gguf(folder / f"{name}.gguf", settings()) for name in names]


def run(folder, catalog, wanted="auto", hardware=LARGE, say=lambda _line: None, **host):
    config = Config(
        model=wanted, models=ModelsSettings(directory=str(folder)), host=HostSettings(**host)
    )
    return resolve(config, say=say, environ={}, catalog=catalog, hardware=hardware)


def test_auto_takes_the_best_on_disk(folder, catalog):
    put(folder, "plain")
    assert run(folder, catalog).id == "plain"
    put(folder, "good")
    found = run(folder, catalog)
    assert (found.id, found.path, found.n_ctx) == ("good", folder / "good.gguf", 8192)


def test_auto_passes_over_what_does_not_fit(folder, catalog):
    put(folder, "good", "plain")
    catalog = (dataclasses.replace(catalog[0], kv_bytes_per_token=GIB), *catalog[1:])
    assert run(folder, catalog).id == "plain"


def test_auto_never_takes_the_model_for_tests(folder, catalog):
    put(folder, "toy")
    with pytest.raises(UnavailableError, match="`qwenterm models pull`"):
        run(folder, catalog)


def test_auto_without_a_model_names_the_remedy(folder, catalog):
    with pytest.raises(UnavailableError, match=r"no model on disk; `qwenterm models pull` fetches"):
        run(folder, catalog)
    with pytest.raises(UnavailableError, match="no model on disk"):
        run(folder / "not there", catalog)


def test_a_cut_file_is_refused_by_name_and_size_even_where_another_would_do(folder, catalog):
    """Going on silently with a worse model would hide the damage."""
    good, _plain = put(folder, "good", "plain")
    size = good.stat().st_size
    good.write_bytes(good.read_bytes()[: size // 2])
    for wanted in ("auto", "good"):
        with pytest.raises(UnavailableError) as caught:
            run(folder, catalog, wanted)
        message = str(caught.value)
        assert str(good) in message and "`qwenterm models pull good`" in message
        assert f"{size // 2:,} bytes instead of {size:,}" in message
    assert run(folder, catalog, "plain").id == "plain"


def test_an_id_that_is_not_on_disk_names_the_remedy(folder, catalog):
    with pytest.raises(UnavailableError, match=r"not on disk; `qwenterm models pull good` fetches"):
        run(folder, catalog, "good")
    (folder / "good.gguf.part").write_bytes(b"x")
    with pytest.raises(UnavailableError, match="not been fetched completely"):
        run(folder, catalog, "good")


def test_a_path_to_any_file_works(folder, catalog, tmp_path, monkeypatch):
    mine = write_gguf(tmp_path / "mine.gguf", settings())
    assert run(folder, catalog, str(mine)).path == mine
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(folder, catalog, "~/mine.gguf").path == mine
    monkeypatch.chdir(tmp_path)
    found = run(folder, catalog, "mine.gguf")
    assert (found.path, found.id) == (mine, "mine")
    put(folder, "other")
    assert run(folder, catalog, "other.gguf").path == folder / "other.gguf"


def test_a_wrong_name_is_a_usage_error_that_lists_the_known_ones(folder, catalog):
    with pytest.raises(UsageError, match=r"'gpt' is neither `auto`.*good, plain"):
        run(folder, catalog, "gpt")
    with pytest.raises(UnavailableError, match="does not exist"):
        run(folder, catalog, "./gpt")


def test_the_context_is_the_configured_one_within_what_the_model_knows(folder, catalog):
    put(folder, "good")
    lines = []
    assert run(folder, catalog, context=2048, say=lines.append).n_ctx == 2048
    assert lines == []
    assert run(folder, catalog, context=100_000, say=lines.append).n_ctx == 8192
    assert "lowered from 100000 to the 8192" in lines[0]


def test_a_model_that_may_not_fit_is_tried_with_a_warning(folder, catalog):
    put(folder, "good")
    lines = []
    tight = dataclasses.replace(SMALL, ram_bytes=GIB // 2)
    assert run(folder, catalog, "good", hardware=tight, say=lines.append).id == "good"
    assert "good may not fit this machine" in lines[0]


def test_the_answer_does_not_change_while_the_machine_is_busy(folder, catalog):
    """The host reloads when path or context differ: it must not, for its own use of memory."""
    put(folder, "good")
    idle = Hardware(4 * GIB, 4 * GIB, (Gpu("card", 4 * GIB, 4 * GIB),), 4)
    busy = Hardware(4 * GIB, GIB // 4, (Gpu("card", 4 * GIB, GIB // 4),), 4)
    assert run(folder, catalog, hardware=idle) == run(folder, catalog, hardware=busy)


def test_the_state_on_disk(folder, catalog):
    good = catalog[0]
    assert disk_state(good, folder) == "no"
    (folder / "good.gguf.part").write_bytes(b"x")
    assert disk_state(good, folder) == "partial"
    put(folder, "good")
    assert disk_state(good, folder) == "yes"
    (folder / "good.gguf").write_bytes(b"x")
    assert disk_state(good, folder) == "damaged"
