"""`qwenterm doctor`: somebody for whom nothing works must learn what to do, part by part."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.models.gguf_writer import settings, write_gguf
from tests.stubs.chat_server import ChatServer
from tests.stubs.child import SECONDS, Ended, build_world

PARTS = ["qwenterm", "config", "engine", "hardware", "model", "host", "sandbox", "search", "git"]


@pytest.fixture
def world():
    folder = Path(tempfile.mkdtemp(prefix="qt-"))
    yield build_world(folder)
    shutil.rmtree(folder)


def findings(done):
    """Return part -> (good, text)."""
    assert done.stderr == ""
    lines = [re.fullmatch(r"(ok  |FIX )(\S+) +(.*)", line) for line in done.stdout.splitlines()]
    assert all(lines), done.stdout
    return {line[2]: (line[1] == "ok  ", line[3]) for line in lines}


def check(done):
    """Return the findings, after what holds for all of them."""
    found = findings(done)
    assert list(found) == PARTS
    assert done.status == (0 if all(good for good, _ in found.values()) else 1)
    for part, (good, text) in found.items():
        assert good or re.search(r"`.+`|pip install|QWENTERM_|again|above", text), (
            f"{part}: no remedy"
        )
    return found


def programs(folder, *names):
    """Make a folder for PATH with these programs only."""
    folder.mkdir()
    for name in names:
        program = shutil.which(name)
        assert program, f"{name} is needed for this test"
        (folder / name).symlink_to(program)
    return str(folder)


def installation(folder, *, without=()):
    """Return the Python of an installation like this one, but without some of its packages."""
    here = Path(sys.prefix)
    packages = Path(next(path for path in sys.path if path.endswith("site-packages")))
    there = folder / packages.relative_to(here)
    there.mkdir(parents=True)
    for entry in packages.iterdir():
        if not entry.name.startswith(tuple(without)):
            (there / entry.name).symlink_to(entry)
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.symlink_to(sys.executable)
    shutil.copy(here / "pyvenv.cfg", folder)
    return python


def run_with(python, world, **changes):
    done = subprocess.run(
        [python, "-m", "qwenterm", "doctor"],
        cwd=world.project,
        env=world.environment(**changes),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_every_part_is_looked_at(world):
    with ChatServer() as server:
        environment = world.environment(QWENTERM_BASE_URL=server.url)
        found = check(world.run("doctor", environment=environment))
    assert found["model"] == (True, f"{server.url} answers")
    assert found["config"][0] and str(world.config) in found["config"][1]


def test_programs_that_are_missing_are_named_with_their_packages(world):
    path = programs(world.folder / "bin", "true", "bash")
    found = check(world.run("doctor", environment=world.environment(PATH=path)))
    good, text = found["sandbox"]
    assert not good and "bubblewrap is not installed (package `bubblewrap`)" in text
    good, text = found["git"]
    assert not good and "package `git`" in text


def test_python_packages_that_are_missing_are_named_with_the_command(world):
    python = installation(world.folder / "installed", without=["llama_cpp", "llama-cpp"])
    path = programs(world.folder / "bin", "true", "bash", "git")
    found = check(run_with(python, world, PATH=path))
    good, text = found["search"]
    assert not good and "pip install ripgrep" in text
    good, text = found["engine"]
    assert not good and "pip install llama-cpp-python" in text
    assert found["git"][0]


def test_a_model_that_is_missing_or_damaged_is_named(world):
    good, text = check(world.run("doctor"))["model"]
    assert not good and "`qwenterm models pull`" in text
    path = write_gguf(world.folder / "cut.gguf", settings())
    path.write_bytes(path.read_bytes()[:-100])
    environment = world.environment(QWENTERM_MODEL=str(path))
    good, text = check(world.run("doctor", environment=environment))["model"]
    assert not good and str(path) in text and "cut short" in text


def test_an_endpoint_that_does_not_answer_is_named(world):
    with ChatServer() as server:
        url = server.url
    world.configure(f'[endpoint]\nbase_url = "{url}"\n')
    good, text = check(world.run("doctor"))["model"]
    assert not good and url in text and "`endpoint.base_url`" in text


def test_a_wrong_setting_is_told_once_and_stops_nothing_else(world):
    path = world.configure("[agent]\nmax_stepz = 4\n")
    done = world.run("doctor")
    found = check(done)
    assert not found["config"][0] and f"{path}:2: " in found["config"][1]
    assert done.stdout.count("max_stepz") == 1
    assert found["engine"][0] and found["git"][0]


def test_a_sandbox_that_was_switched_off_is_no_good_finding(world):
    world.configure('[sandbox]\nbackend = "none"\n')
    good, text = check(world.run("doctor"))["sandbox"]
    assert not good and "`sandbox.backend`" in text


def test_a_folder_that_others_can_enter_is_named(world):
    (world.folder / "run").chmod(0o755)
    good, text = check(world.run("doctor"))["host"]
    assert not good and "0700" in text and "QWENTERM_RUNTIME_DIR" in text
