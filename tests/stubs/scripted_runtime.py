"""A runtime around a scripted model: real tools, real sandbox, a real repository."""

import subprocess

from qwenterm import app
from qwenterm.config import Config
from qwenterm.sandbox.backends import choose
from tests.stubs.scripted_model import ScriptedModel


def small_repository(folder):
    """Make a repository with one file in `folder` and return it."""
    project = folder / "project"
    project.mkdir()
    (project / "one.txt").write_text("one\n")
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    return project


def scripted_runtime(workspace, *answers, model=None, mode="auto", delay=0.0, **agent):
    """Return a runtime that answers from a script; `agent` are settings of that section."""
    model = model or ScriptedModel(*answers, delay=delay)
    config = Config.model_validate({"permission_mode": mode, "agent": agent})
    return app.build_runtime(config, workspace, backend=choose("auto"), model=model)
