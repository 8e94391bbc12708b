"""What a person sees of a long download: a bar on a terminal, a quiet log elsewhere."""

import io
import os

import pytest

from qwenterm.models.progress import DownloadProgress, duration

MB = 1_000_000


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def run(stream, environ):
    clock = Clock()
    display = DownloadProgress(stream, environ, clock)
    display.label = "starter"
    for step in range(201):
        display(step * 5 * MB, 1000 * MB)
        clock.now += 0.5
    display.say("checking")
    display.finish()


@pytest.fixture
def terminal():
    """A real pseudo-terminal: `isatty` and the driver's newlines are the system's."""
    leader, follower = os.openpty()
    with os.fdopen(follower, "w", buffering=1) as stream:
        os.set_blocking(leader, False)

        def read():
            text = b""
            while True:
                try:
                    text += os.read(leader, 65536)
                except (BlockingIOError, OSError):
                    return text.decode()

        yield stream, read
    os.close(leader)


def draw(terminal, environ, steps=(0, 250, 500)):
    stream, read = terminal
    clock = Clock()
    display = DownloadProgress(stream, environ, clock)
    display.label = "starter"
    for step in steps:
        display(step * MB, 1000 * MB)
        clock.now += 10
    display.say("checking")
    return read()


def test_a_log_gets_one_line_for_each_tenth():
    stream = io.StringIO()
    run(stream, {"TERM": "xterm"})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 12
    assert lines[5] == "starter:  50%  500 of 1,000 MB  10.0 MB/s  50 s left"
    assert lines[-1] == "checking"
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


def test_a_terminal_gets_a_bar_with_rate_and_time_left(terminal):
    text = draw(terminal, {"TERM": "xterm-256color"})
    last = text.split("\r\x1b[K")[-1]
    assert "50%  500 of 1,000 MB  25.0 MB/s  20 s left" in last
    assert "\x1b[36m#" in last
    assert last.endswith("\r\nchecking\r\n")


def test_no_color_keeps_the_bar_and_drops_the_colour(terminal):
    text = draw(terminal, {"TERM": "xterm-256color", "NO_COLOR": "1"})
    assert "[###" in text and "\x1b[36m" not in text


def test_a_dumb_terminal_gets_lines(terminal):
    text = draw(terminal, {"TERM": "dumb"})
    assert "\x1b" not in text and "starter:  25%" in text


def test_a_download_that_begins_anew_shows_no_negative_rate():
    stream = io.StringIO()
    clock = Clock()
    display = DownloadProgress(stream, {}, clock)
    for done in (500, 0, 600):
        clock.now += 1
        display(done * MB, 1000 * MB)
    assert "-" not in stream.getvalue()
    display(0, 0)  # nothing to fetch is no division by zero


def test_durations_read_well():
    assert [duration(seconds) for seconds in (4.4, 200, 3725)] == [
        "4 s",
        "3 min 20 s",
        "1 h 02 min",
    ]
