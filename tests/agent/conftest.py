"""Fixtures of the loop's tests."""

from functools import partial

import pytest

from tests.stubs.scripted_runtime import scripted_runtime, small_repository


@pytest.fixture
def workspace(tmp_path):
    return small_repository(tmp_path)


@pytest.fixture
def build(workspace):
    return partial(scripted_runtime, workspace)
