"""Models for the engine's tests."""

from __future__ import annotations

import pytest

from qwenterm.engine.llama import Llama, LoadParameters
from tests.stubs.bench import Bench
from tests.stubs.tiny_hybrid import write_tiny_hybrid


@pytest.fixture(scope="session")
def hybrid_file(tmp_path_factory, vocab_qwen35, qwen35_template):
    """A model of Qwen3.5's architecture with random weights."""
    path = tmp_path_factory.mktemp("hybrid") / "tiny-hybrid.gguf"
    return write_tiny_hybrid(path, vocab_qwen35, qwen35_template)


@pytest.fixture(scope="session")
def hybrid_llama(hybrid_file):
    loaded = Llama(hybrid_file, LoadParameters(n_ctx=4096, batch=128), lambda _fraction: True)
    yield loaded
    loaded.close()


@pytest.fixture
def hybrid(hybrid_llama):
    hybrid_llama.forget_all()
    return Bench(hybrid_llama)
