"""The catalogue is what everything about models is decided on: wrong facts mean a wrong file."""

import re

import pytest

from qwenterm.core.errors import UsageError
from qwenterm.models.catalog import find, find_by_file, load_catalog
from qwenterm.models.gguf import check_file


def test_every_entry_can_be_verified_and_had():
    models = load_catalog()
    assert len({model.id for model in models}) == len({model.file for model in models}) == 7
    for model in models:
        assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
        assert model.bytes > 100_000_000
        assert model.license == "Apache-2.0"
        assert "/" not in model.file
        assert model.huggingface is not None
        assert re.fullmatch(r"[0-9a-f]{40}", model.huggingface.revision)


def test_the_parts_of_a_wheel_source_add_up_to_the_file():
    """Resuming counts whole parts by length: a wrong part size would join garbage."""
    with_wheels = [model for model in load_catalog() if model.wheels]
    assert {model.id for model in with_wheels} == {"starter", "tiny"}
    for model in with_wheels:
        parts = model.wheels
        assert (parts.parts - 1) * parts.part_bytes < model.bytes <= parts.parts * parts.part_bytes


def test_the_flagship_is_preferred_and_tiny_is_never_chosen():
    models = load_catalog()
    assert models[0].id == "qwen3.5-9b"
    assert [model.id for model in models if model.quality == 0] == ["tiny"]


def test_an_unknown_id_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match=r"'qwen9'.*qwen3\.5-9b.*starter"):
        find("qwen9")
    assert find("starter").file.startswith("qwen2.5-coder-1.5b")
    assert find_by_file("nothing.gguf") is None


def test_the_catalogue_agrees_with_the_real_file(tiny_model):
    """The memory plan is made from the catalogue before a file is fetched."""
    facts, entry = check_file(tiny_model), find("tiny")
    assert facts.size == entry.bytes
    assert facts.context_length == entry.context
    assert facts.kv_bytes_per_token == entry.kv_bytes_per_token
