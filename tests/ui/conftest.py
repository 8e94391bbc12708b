"""Fixtures of the interface's tests."""

import pytest

from qwenterm.ui.tui import composer
from qwenterm.ui.tui.app import QwentermApp
from tests.stubs.scripted_runtime import scripted_runtime, small_repository


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    """Keys are pressed here faster than a person could."""
    monkeypatch.setattr(composer, "_READING_SECONDS", 0.0)


@pytest.fixture
def workspace(tmp_path):
    return small_repository(tmp_path)


@pytest.fixture
def build(workspace):
    def build(*answers, mode="ask", delay=0.0, model=None, **options):
        runtime = scripted_runtime(workspace, *answers, model=model, mode=mode, delay=delay)
        return QwentermApp(runtime, title="tiny", **options)

    return build
