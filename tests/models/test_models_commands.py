"""`qwenterm models ...` as a person calls it; only list and path may write to stdout."""

import fcntl
import io
import json
import os
import subprocess
import sys

import hub_server
import pytest
from gguf_writer import settings, write_gguf
from model_source import content, model, write_wheels

from qwenterm.config import Config, ModelsSettings
from qwenterm.core.errors import UnavailableError, UsageError
from qwenterm.models.catalog import load_catalog
from qwenterm.models.commands import list_models, main, pull_model
from qwenterm.models.hardware import Hardware

GIB = 1 << 30
MACHINE = Hardware(24 * GIB, 20 * GIB, (), 2)
GOOD, PLAIN = content(seed=3), content(seed=4)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def config(folder):
    return Config(models=ModelsSettings(directory=str(folder), connect_seconds=0.5))


@pytest.fixture
def catalog():
    """`good` is only on hubs, `plain` comes as wheels too."""
    return (
        model(GOOD, id="good", file="good.gguf", quality=90, wheels=None),
        model(PLAIN, id="plain", file="plain.gguf", quality=50),
    )


@pytest.fixture
def index(tmp_path, monkeypatch):
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(write_wheels(tmp_path / "index", PLAIN)))


def test_the_table_is_aligned_and_says_what_fits(config):
    out = io.StringIO()
    list_models(config, out, environ={}, hardware=MACHINE)
    lines = out.getvalue().splitlines()
    assert len(lines) == 8
    columns = [lines[0].index(title) for title in ("ID", "SIZE", "ON DISK", "FITS", "LICENSE")]
    for line in lines[1:]:
        assert all(line[at - 1] == " " and line[at] != " " for at in columns)
    by_id = {line[columns[0] :].split()[0]: line for line in lines[1:]}
    assert "cpu (slow)" in by_id["qwen3.5-9b"]
    assert by_id["qwen3.5-2b"].startswith("*")
    assert sum(line.startswith("*") for line in lines) == 1


def test_the_json_list_can_be_used_by_a_script(config, folder, catalog):
    folder.mkdir()
    data = write_gguf(folder / "good.gguf", settings()).read_bytes()
    catalog = (model(data, id="good", file="good.gguf", quality=90), catalog[1])
    out = io.StringIO()
    assert main(["list", "--json"], config, out=out, environ={}, catalog=catalog) == 0
    entries = json.loads(out.getvalue())
    assert [(entry["id"], entry["on_disk"]) for entry in entries] == [
        ("good", "yes"),
        ("plain", "no"),
    ]
    assert entries[0]["path"] == str(folder / "good.gguf")
    assert {"bytes", "fits", "where", "quick", "license", "best"} <= set(entries[0])


def test_pull_takes_the_best_model_where_a_hub_answers(config, folder, catalog, capsys):
    with hub_server.serve(GOOD) as hub:
        environ = {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": "http://127.0.0.1:1"}
        assert main(["pull"], config, environ=environ, catalog=catalog) == 0
    assert (folder / "good.gguf").read_bytes() == GOOD
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "good: 100%" in captured.err and f"good.gguf is in {folder}" in captured.err


def test_pull_takes_the_starter_where_no_hub_answers(config, folder, catalog, capsys, index):
    """One line for each hub, both within their seconds, and then the model that can be had."""
    with hub_server.silent_server() as silent, hub_server.closed_port() as closed:
        environ = {"HF_ENDPOINT": silent, "MODELSCOPE_ENDPOINT": closed}
        path = pull_model(config, environ=environ, catalog=catalog, hardware=MACHINE)
    assert path == folder / "plain.gguf"
    assert path.read_bytes() == PLAIN
    passed = [line for line in capsys.readouterr().err.splitlines() if "passed over" in line]
    assert len(passed) == 2
    assert passed[0].startswith("huggingface") and passed[1].startswith("modelscope")


def test_pull_goes_on_with_the_starter_if_the_hub_fails_later(
    config, folder, catalog, capsys, index
):
    """A hub may answer the first question and then deliver another file."""
    with hub_server.serve(b"another file") as hub, hub_server.closed_port() as closed:
        environ = {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": closed}
        path = pull_model(config, environ=environ, catalog=catalog, hardware=MACHINE)
    assert path.read_bytes() == PLAIN
    assert "going on with another model" in capsys.readouterr().err


def test_pull_without_any_source_is_one_clear_error(folder, catalog):
    config = Config(models=ModelsSettings(directory=str(folder), sources=()))
    with pytest.raises(UnavailableError, match=r"models\.sources"):
        pull_model(config, environ={}, catalog=catalog, hardware=MACHINE)
    with pytest.raises(UnavailableError, match="good could not be fetched"):
        pull_model(config, "good", environ={}, catalog=catalog, hardware=MACHINE)


def test_rm_removes_the_file_and_what_a_pull_left(config, folder, catalog):
    folder.mkdir()
    for name in ("good.gguf", "good.gguf.part", "plain.gguf"):
        (folder / name).write_bytes(b"x")
    (folder / "good.gguf.scratch").mkdir()
    assert main(["rm", "good"], config, environ={}, catalog=catalog) == 0
    assert {path.name for path in folder.iterdir()} == {"plain.gguf", ".good.gguf.lock"}
    with pytest.raises(UsageError, match="good is not on disk"):
        main(["rm", "good"], config, environ={}, catalog=catalog)
    with pytest.raises(UsageError, match="no model is called"):
        main(["rm", "../plain"], config, environ={}, catalog=catalog)


def test_rm_does_not_pull_the_file_away_from_a_pull(config, folder, catalog):
    folder.mkdir()
    (folder / "good.gguf.part").write_bytes(b"x")
    with (folder / ".good.gguf.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UnavailableError, match="being pulled just now"):
            main(["rm", "good"], config, environ={}, catalog=catalog)
    assert (folder / "good.gguf.part").exists()


def test_path_prints_the_path_and_only_of_a_whole_file(config, folder, catalog):
    folder.mkdir()
    data = write_gguf(folder / "good.gguf", settings()).read_bytes()
    catalog = (model(data, id="good", file="good.gguf", quality=90), catalog[1])
    for arguments in (["path"], ["path", "good"]):
        out = io.StringIO()
        assert main(arguments, config, out=out, environ={}, catalog=catalog) == 0
        assert out.getvalue() == f"{folder / 'good.gguf'}\n"
    with pytest.raises(UnavailableError, match="`qwenterm models pull plain`"):
        main(["path", "plain"], config, environ={}, catalog=catalog)


def test_a_wrong_argument_is_status_2(config, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fetch"], config)
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


def test_resolving_loads_no_http_client():
    """The host resolves the model at every start; a download library costs a third of a second."""
    code = (
        "import sys, qwenterm.models.commands, qwenterm.models.resolve\n"
        "bad = {'httpx', 'huggingface_hub', 'llama_cpp'} & set(sys.modules)\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_real_catalogue_is_the_default(config):
    out = io.StringIO()
    list_models(config, out, as_json=True, environ={})
    assert [entry["id"] for entry in json.loads(out.getvalue())] == [
        entry.id for entry in load_catalog()
    ]
