"""The question of a one-shot run, on a real terminal, while stdin and stdout are pipes."""

import fcntl
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pytest

from tests.stubs.chat_server import HANG, ChatServer, Reply, called, delta, said
from tests.stubs.child import SECONDS, build_world, command, ended

QUESTION = "Allow?"
WRITE = {"path": "new.txt", "content": "made\n"}
_IN_BACKGROUND = """
import os, subprocess, sys
sys.exit(subprocess.run(sys.argv[1:], preexec_fn=lambda: os.setpgid(0, 0)).returncode)
"""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def world():
    folder = Path(tempfile.mkdtemp(prefix="qt-"))
    yield build_world(folder)
    shutil.rmtree(folder)


class Person:
    """Somebody at a terminal at which qwenterm runs, its stdin and stdout being pipes."""

    def __init__(self, world, server, *, background=False):
        self.master, slave = pty.openpty()
        self.raw = self.screen = ""

        program = command(["-p", "x", "--base-url", server.url])
        if background:
            # `command &`: another process group than the one in front.
            program = [sys.executable, "-c", _IN_BACKGROUND, *program]
        self.process = subprocess.Popen(
            program,
            cwd=world.project,
            env=world.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
            pass_fds=(slave,),
        )
        os.close(slave)

    def wait_for(self, text):
        """Read the screen until `text` stands on it."""
        deadline = time.monotonic() + SECONDS
        while text not in self.screen:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.master], [], [], max(0, left))
            assert ready, f"no {text!r} on the screen: {self.screen!r}"
            data = os.read(self.master, 65536).decode("utf-8", "replace")
            self.raw += data
            self.screen = _ESCAPES.sub("", self.raw)

    def type(self, text):
        os.write(self.master, text.encode())

    def leave(self):
        """Wait for the end of the program; returns what came of it."""
        done = ended(self.process)
        os.close(self.master)
        return done


def question(server, world, **options):
    """Bring it to the question about the new file."""
    person = Person(world, server, **options)
    person.wait_for(QUESTION)
    return person


def made(world):
    return (world.project / "new.txt").exists()


def test_yes_makes_the_file_that_was_shown(world):
    with ChatServer(called("write", **WRITE), said("Made.")) as server:
        person = question(server, world)
        assert "change new.txt" in person.screen and "+made" in person.screen
        assert not made(world)
        person.type("y\r")
        done = person.leave()
    assert (done.status, done.stdout) == (0, "Made.\n")
    assert (world.project / "new.txt").read_text() == "made\n"


@pytest.mark.parametrize("keys", ["n\r", "\x03", "\x04", "\r\rno\r"])
def test_no_ctrl_c_and_ctrl_d_leave_everything_as_it_was(world, keys):
    with ChatServer(called("write", **WRITE), said("Not made.")) as server:
        person = question(server, world)
        person.type(keys)
        done = person.leave()
    # Answered: a person was there, and the model could go on.
    assert (done.status, done.stdout) == (0, "Not made.\n")
    assert not made(world)


def test_a_reason_is_told_to_the_model(world):
    with ChatServer(called("write", **WRITE), said("Not made.")) as server:
        person = question(server, world)
        person.type("use another name\r")
        person.leave()
    assert "use another name" in server.chats[1]["messages"][-1]["content"]
    assert not made(world)


def test_always_asks_no_second_time(world):
    second = {"path": "second.txt", "content": "made\n"}
    replies = (called("write", **WRITE), called("write", "call_2", **second), said("Made both."))
    with ChatServer(*replies) as server:
        person = question(server, world)
        person.type("a\r")
        assert person.leave().stdout == "Made both.\n"
    assert made(world) and (world.project / "second.txt").exists()


def test_what_was_typed_before_the_question_does_not_answer_it(world):
    """Impatient keys must not approve a change that nobody has seen yet."""
    with ChatServer(called("write", **WRITE), said("Not made.")) as server:
        person = Person(world, server)
        person.type("y\r")
        person.wait_for(QUESTION)
        person.type("n\r")
        assert person.leave().stdout == "Not made.\n"
    assert not made(world)


def test_ctrl_c_after_a_question_still_interrupts(world):
    """The prompt takes the signal over while it asks; it must give it back."""
    hang = Reply([delta(content="Well"), HANG])
    with ChatServer(called("write", **WRITE), hang) as server:
        person = question(server, world)
        person.type("y\r")
        assert server.hanging.wait(SECONDS)
        person.type("\x03")
        done = person.leave()
    assert done.status == 130 and "interrupted" in done.stderr


def test_the_terminal_works_as_before_after_a_question(world):
    """A terminal left raw shows nothing that its owner types."""
    with ChatServer(called("write", **WRITE), said("Made.")) as server:
        person = question(server, world)
        flags = termios.tcgetattr(person.master)[3]
        assert not flags & termios.ECHO
        person.type("y\r")
        person.process.wait(SECONDS)
        flags = termios.tcgetattr(person.master)[3]
        person.leave()
    assert flags & termios.ECHO and flags & termios.ICANON


def test_a_hostile_file_name_steers_no_terminal(world):
    """A name or a text with control characters could hide what is being approved."""
    hostile = {"path": "a\x1b[2Jb.txt", "content": "x\x1b]0;owned\x07\n"}
    with ChatServer(called("write", **hostile), said("Not made.")) as server:
        person = question(server, world)
        assert "\x1b]0;" not in person.raw and "\x1b[2J" not in person.raw
        assert "a␛[2Jb.txt" in person.screen
        person.type("n\r")
        person.leave()


def test_in_the_background_nobody_is_asked(world):
    """Reading the terminal from there would stop the process for good, without a word."""
    with ChatServer(called("write", **WRITE), said("Not made.")) as server:
        person = Person(world, server, background=True)
        done = person.leave()
    assert (done.status, done.stdout) == (4, "Not made.\n")
    assert QUESTION not in person.screen and not made(world)
    assert "nobody is there" in server.chats[1]["messages"][-1]["content"]
