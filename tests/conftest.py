"""Shared fixtures: the tests touch nothing of the user's, and read real files from `.test-data`."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEST_DATA = ROOT / ".test-data"


@pytest.fixture(scope="session", autouse=True)
def own_world() -> Iterator[Path]:
    """Configuration, state and host sockets of the tests lie in a folder of their own.

    The path is short: a Unix socket's may have 107 bytes.
    """
    folder = Path(tempfile.mkdtemp(prefix="qt-"))
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    patch.setenv("XDG_STATE_HOME", str(folder / "state"))
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.setenv("QWENTERM_RUNTIME_DIR", str(folder / "run"))
    for name in list(os.environ):
        # A model or server that the developer uses every day must not answer the tests.
        if name.startswith("QWENTERM_") and name != "QWENTERM_RUNTIME_DIR":
            patch.delenv(name)
    patch.setenv("QWENTERM_MODELS_DIR", str(TEST_DATA / "models"))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background of a script, children would inherit that and ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for kind in ("AUTHOR", "COMMITTER"):
        patch.setenv(f"GIT_{kind}_NAME", "Test")
        patch.setenv(f"GIT_{kind}_EMAIL", "test@example.invalid")
    yield folder
    patch.undo()
    shutil.rmtree(folder, ignore_errors=True)


def _test_file(name: str) -> Path:
    path = TEST_DATA / name
    assert path.is_file(), f"{path} is missing: ./tools/fetch-test-data brings it"
    return path


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The smallest real model: it answers badly, but it answers."""
    return _test_file("models/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")


@pytest.fixture(scope="session")
def qwen35_template() -> str:
    """The chat template of the Qwen3.5 family."""
    return _test_file("Qwen3.5-4B.jinja").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def vocab_qwen35() -> Path:
    """A GGUF file with Qwen3.5's vocabulary and no weights."""
    return _test_file("ggml-vocab-qwen35.gguf")


@pytest.fixture(scope="session")
def vocab_qwen2() -> Path:
    """A GGUF file with Qwen2.5's vocabulary and no weights."""
    return _test_file("ggml-vocab-qwen2.gguf")
