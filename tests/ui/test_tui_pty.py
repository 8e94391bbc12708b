"""The program in a real terminal with the real tiny model, as a user starts it."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pyte
import pytest

from qwenterm.ui.tui.composer import PLACEHOLDER

_ALTERNATE_SCREEN_LEFT = b"\x1b[?1049l"
_COLUMNS, _ROWS = 80, 24


class Terminal:
    """A program on a pseudoterminal, and the screen that it draws."""

    def __init__(self, command, *, cwd, environ):
        self._master, slave = pty.openpty()
        size = struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        self.modes = termios.tcgetattr(slave)
        self._slave = slave
        self.raw = b""
        self._screen = pyte.Screen(_COLUMNS, _ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env=environ,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def text(self):
        return "\n".join(self._screen.display)

    def read(self, seconds):
        """Take what the program draws within `seconds`."""
        if not select.select([self._master], [], [], seconds)[0]:
            return
        data = os.read(self._master, 65536)
        self.raw += data
        # Keyboard-protocol sequences with < or > would be drawn as text by pyte.
        self._stream.feed(data.replace(b"\x1b[<u", b"").replace(b"\x1b[>1u", b""))

    def until(self, condition, seconds):
        end = time.monotonic() + seconds
        while not condition(self.text()):
            assert time.monotonic() < end, self.text()
            assert self.process.poll() is None, self.text()
            self.read(0.1)

    def type(self, data):
        os.write(self._master, data)

    def exit_status(self, seconds):
        """Wait for the end; what is drawn last must be read, or the program could not end."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text()
            self.read(0.05)
        self.read(0.1)
        return self.process.returncode

    def restored(self):
        return termios.tcgetattr(self._slave) == self.modes

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def environ(tmp_path):
    # Sockets have short names at most.
    with tempfile.TemporaryDirectory(prefix="qt-") as short:
        yield {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "XDG_DATA_HOME": str(tmp_path / "data"),
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "QWENTERM_RUNTIME_DIR": short,
        }


@pytest.fixture
def start(tmp_path, environ):
    started = []
    (tmp_path / "project").mkdir()

    def start(*arguments, **more):
        command = [sys.executable, "-m", "qwenterm", *arguments]
        terminal = Terminal(command, cwd=tmp_path / "project", environ={**environ, **more})
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.close()


@pytest.fixture
def host(environ):
    """Whatever host a test started is stopped after it."""
    yield
    command = [sys.executable, "-m", "qwenterm", "host", "stop"]
    stopped = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)
    assert stopped.stdout == "stopped\n", stopped.stderr


@pytest.mark.model
def test_a_question_is_answered_and_the_terminal_given_back(start, host, environ, tiny_model):
    # So small a model calls tools for nothing; after one step it has to answer. One thread: with
    # more, its threads wait for each other when the tests share the machine.
    settings = Path(environ["XDG_CONFIG_HOME"], "qwenterm", "config.toml")
    settings.parent.mkdir(parents=True)
    settings.write_text("[agent]\nmax_steps = 1\nmax_output_tokens = 32\n[host]\nthreads = 1\n")
    terminal = start(QWENTERM_MODEL=str(tiny_model))
    terminal.until(lambda text: PLACEHOLDER in text and "project" in text, 20)
    assert not terminal.restored()
    terminal.type(b"Hello! Who are you?\r")
    terminal.until(lambda text: "tok/s" in text and "/help" in text, 240)
    blocks = [line.strip() for line in terminal.text().splitlines() if line.strip()]
    prompt = next(n for n, line in enumerate(blocks) if "Who are you?" in line)
    below = "".join(line for line in blocks[prompt + 1 :] if line[0] not in "▸╭│╰")
    assert sum(character.isalpha() for character in below.partition("/help")[0]) >= 5
    terminal.type(b"\x11")
    assert terminal.exit_status(15) == 0
    assert terminal.raw.rfind(_ALTERNATE_SCREEN_LEFT) > terminal.raw.rfind(b"\x1b[?1049h") >= 0
    assert terminal.restored()


def test_keys_of_a_real_terminal_make_new_lines(start):
    """Terminals without the newer keyboard protocol send Ctrl+J and Alt+Enter as bytes."""
    terminal = start("-m", "tiny")
    terminal.until(lambda text: PLACEHOLDER in text, 20)
    terminal.type(b"one\ntwo\x1b\rthree\x1b[13;2ufour")
    terminal.until(lambda text: "four" in text, 10)
    lines = [line.strip(" │") for line in terminal.text().splitlines()]
    assert [line for line in lines if line in ("one", "two", "three", "four")] == [
        *("one", "two", "three", "four")
    ]
    terminal.type(b"\x1b[200~ pasted\rtext\x1b[201~")
    terminal.until(lambda text: "four pasted" in text and "text" in text, 10)
    terminal.type(b"\x03\x03")
    assert terminal.exit_status(15) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_given_back_when_the_program_is_told_to_end(start, number):
    terminal = start("-m", "tiny")
    terminal.until(lambda text: PLACEHOLDER in text, 20)
    terminal.process.send_signal(number)
    assert terminal.exit_status(15) == 128 + number
    assert terminal.restored()
