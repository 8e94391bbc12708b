"""The command line as processes: the exit status that scripts branch on."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from qwenterm.core import events
from tests.cli.looking import QUICK_SECONDS, WRITE, one_line, seen_by
from tests.models.gguf_writer import settings, write_gguf
from tests.stubs.chat_server import HANG, ChatServer, Reply, called, delta, refused, said
from tests.stubs.child import SECONDS, ended


def test_no_answer_is_status_1(ask):
    done = ask(said())
    assert (done.status, done.stdout) == (1, "")
    assert one_line(done.stderr) and "no answer" in done.stderr


def test_an_error_of_the_server_is_one_line(ask):
    done = ask(refused(500, "<html><h1>Oh\nno</h1></html>"))
    assert done.status == 1
    assert one_line(done.stderr) and "Oh no" in done.stderr


# Exit status 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing to answer"),
        (("-p", "  "), "nothing to answer"),
        (("-p", "a", "b"), "once"),
        (("-p", "a", "--cd", "/does/not/exist"), "/does/not/exist"),
        (("-p", "a", "--no-such-flag"), "--no-such-flag"),
        (("-p", "a", "--permission-mode", "all"), "plan"),
        (("-p", "a", "-m", "no-such-model"), "no-such-model"),
        (("-p", "a", "--base-url", "localhost:8000"), "http://"),
        (("models", "no-such-action"), "no-such-action"),
        (("config", "set", "agent.max_step", "3"), "did you mean `max_steps`"),
    ],
)
def test_a_wrong_command_line_is_status_2(world, arguments, words):
    done = world.run(*arguments)
    assert (done.status, done.stdout) == (2, "")
    assert words in done.stderr and "Traceback" not in done.stderr


def test_a_wrong_setting_is_named_with_file_and_line(world):
    path = world.configure("# mine\n[agent]\nmax_stepz = 4\n")
    done = world.run("-p", "hello")
    assert done.status == 2 and one_line(done.stderr)
    assert f"{path}:3: " in done.stderr and "`agent.max_stepz`" in done.stderr


def test_binary_input_is_refused_before_anything_is_asked(ask):
    with ChatServer() as server:
        done = ask(server=server, input=b"\x7fELF\0\0\0")
        assert not server.requests
    assert done.status == 2 and one_line(done.stderr) and "not text" in done.stderr


def test_the_home_folder_is_worked_in_only_when_named(ask, world):
    with ChatServer(said("yes")) as server:
        done = ask(server=server, cwd=world.home)
        assert done.status == 2 and one_line(done.stderr) and "--cd" in done.stderr
        assert not server.requests
        assert ask(server=server, flags=("--cd", str(world.home))).status == 0
    assert f"folder {world.home.name};" in seen_by(server)


def test_a_folder_that_is_gone_is_one_line(world):
    script = f'mkdir gone; cd gone; rmdir ../gone; exec "{sys.executable}" -m qwenterm -p hello'
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=world.project,
        env=world.environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 2 and one_line(done.stderr) and "gone" in done.stderr


# Exit status 3


@pytest.mark.parametrize("named", [True, False])
def test_an_endpoint_that_nobody_answers_is_one_line(world, named):
    # A port that is bound but does not listen refuses every connection.
    with ChatServer() as server:
        url = server.url
    if named:
        world.configure('[endpoint]\nmodel = "some"\n')
    done = world.run("-p", "hello", "--base-url", url)
    assert (done.status, done.stdout) == (3, "")
    assert one_line(done.stderr) and f"nothing answers at {url}" in done.stderr


def test_a_cut_model_file_is_named_with_its_size(world):
    """The usual damage; a native library would crash on it without a word."""
    path = write_gguf(world.folder / "cut.gguf", settings())
    size = path.stat().st_size
    os.truncate(path, size // 2)
    done = world.run("-p", "hello", "-m", str(path))
    assert (done.status, done.stdout) == (3, "")
    assert one_line(done.stderr)
    assert str(path) in done.stderr and f"{size // 2:,} bytes instead of {size:,}" in done.stderr


def test_no_model_names_the_command_that_fetches_one(world):
    done = world.run("-p", "hello")
    assert done.status == 3 and one_line(done.stderr)
    assert "`qwenterm models pull`" in done.stderr


@pytest.mark.parametrize(
    ("action", "status", "words"),
    [
        ("status", 3, "no host is running; it starts with the first question"),
        ("stop", 0, "no host was running"),
        ("log", 3, "no log yet"),
    ],
)
def test_without_a_host_its_commands_say_so(world, action, status, words):
    done = world.run("host", action)
    assert done.status == status and words in done.stdout + done.stderr


# Exit status 4, and what the modes let happen


def test_a_change_that_nobody_can_approve_does_not_happen(ask, world):
    """A script that runs unwatched must neither hang on a question nor get its files changed."""
    with ChatServer(called("write", **WRITE), said("I could not.")) as server:
        done = ask(server=server)
    assert (done.status, done.stdout) == (4, "I could not.\n")
    assert not (world.project / "new.txt").exists()
    assert "approval" in done.stderr
    assert "nobody is there" in server.chats[1]["messages"][-1]["content"]


def test_a_command_that_writes_does_not_happen_unapproved(ask, world):
    done = ask(called("shell", command="echo made > new.txt"), said("I could not."))
    assert done.status == 4
    assert not (world.project / "new.txt").exists()


def test_plan_mode_changes_nothing(ask, world):
    flags = ("--permission-mode", "plan")
    done = ask(called("write", **WRITE), said("The plan."), flags=flags)
    assert done.stdout == "The plan.\n"
    assert not (world.project / "new.txt").exists()


@pytest.mark.parametrize("mode", ["edits", "auto"])
def test_modes_that_accept_changes_make_them(ask, world, mode):
    flags = ("--permission-mode", mode)
    done = ask(called("write", **WRITE), said("Made."), flags=flags)
    assert (done.status, done.stdout) == (0, "Made.\n")
    assert (world.project / "new.txt").read_text() == "made\n"


def test_cd_is_where_the_work_happens(ask, world):
    other = world.home / "other"
    other.mkdir()
    flags = ("--permission-mode", "auto", "--cd", str(other))
    ask(called("write", **WRITE), said("Made."), flags=flags)
    assert (other / "new.txt").exists() and not (world.project / "new.txt").exists()


# Interrupted, and nobody reading


@pytest.mark.parametrize("form", ["text", "stream-json"])
def test_ctrl_c_in_the_middle_of_an_answer_ends_at_once(world, form):
    with ChatServer(Reply([delta(content="Well, "), HANG])) as server:
        process = world.start("-p", "x", "--base-url", server.url, "--output-format", form)
        assert server.hanging.wait(SECONDS)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        done = ended(process)
        assert time.monotonic() - began < QUICK_SECONDS
        assert server.hung_up.wait(QUICK_SECONDS)
    assert (done.status, done.stderr) == (130, "qwenterm: interrupted\n")
    if form == "stream-json":
        last = events.from_json(done.stdout.splitlines()[-1])
        assert isinstance(last, events.TurnEnded) and last.reason == "cancelled"


def test_ctrl_c_ends_a_running_command_too(world):
    """A test run or a build that goes on in the background would surprise its owner."""
    marker = "61.7283"
    with ChatServer(called("shell", command=f"sleep {marker}; true")) as server:
        process = world.start("-p", "x", "--base-url", server.url, "--permission-mode", "auto")
        wait_for(lambda: sleeping(marker))
        process.send_signal(signal.SIGINT)
        assert ended(process).status == 130
    wait_for(lambda: not sleeping(marker))


def sleeping(marker):
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", marker]:
                found.append(process)
    return found


def wait_for(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_ctrl_c_while_input_is_awaited_is_quiet(world):
    process = world.start("-p", "x", stdin=subprocess.PIPE)
    # More than a pipe holds: when this returns, the child is reading.
    process.stdin.write(b"x\n" * 100_000)
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert (done.status, done.stderr) == (130, "qwenterm: interrupted\n")


def test_a_reader_that_leaves_early_ends_it_quietly(world):
    """`| head` must not print a stack of our functions over what it shows."""
    # More than a pipe holds, so that there is a write after the reader has gone.
    with ChatServer(said(*["word " * 200] * 200)) as server:
        process = world.start("-p", "x", "--base-url", server.url)
        process.stdout.read(1)
        process.stdout.close()
        process.stdout = None
        done = ended(process)
    assert (done.status, done.stderr) == (141, "")


@pytest.mark.parametrize("arguments", [["-p", "x"], ["config", "show"], ["--version"]])
def test_a_full_disk_under_the_output_is_one_line(world, arguments):
    with ChatServer(said("yes")) as server, Path("/dev/full").open("wb") as full:
        more = ["--base-url", server.url] if arguments[0] == "-p" else []
        done = ended(world.start(*arguments, *more, stdout=full.fileno()))
    assert done.status == 1
    assert one_line(done.stderr) and "No space left" in done.stderr


def test_closed_output_is_no_crash(world):
    with ChatServer(said("yes")) as server:
        script = f'exec "{sys.executable}" -m qwenterm -p x --base-url {server.url} >&- 2>&-'
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=world.project,
            env=world.environment(),
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
        )
    assert done.returncode == 0


def test_version_is_one_line(world):
    done = world.run("--version")
    assert done.status == 0 and done.stderr == ""
    assert re.fullmatch(r"qwenterm \d+\.\d+\.\d+\n", done.stdout)
