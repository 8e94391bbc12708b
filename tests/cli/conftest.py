"""Fixtures of the command line's tests."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.stubs.chat_server import ChatServer
from tests.stubs.child import build_world


@pytest.fixture
def world():
    # Not tmp_path: the path of a Unix socket may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="qt-"))
    yield build_world(folder)
    shutil.rmtree(folder)


@pytest.fixture
def ask(world):
    """Run a one-shot question against a server with these replies."""

    def ask(*replies, prompt="the question", flags=(), server=None, **options):
        with contextlib.ExitStack() as stack:
            server = server or stack.enter_context(ChatServer(*replies))
            prompting = ["-p", prompt] if prompt is not None else []
            return world.run(*prompting, "--base-url", server.url, *flags, **options)

    return ask
