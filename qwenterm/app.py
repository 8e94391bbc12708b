"""Wires the parts together: the one place that knows both the agent side and the model side."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from qwenterm import config as configuration
from qwenterm.agent.runtime import Model, Runtime
from qwenterm.config import Config
from qwenterm.connection import Endpoint, ResidentHost
from qwenterm.core.errors import UsageError
from qwenterm.permissions.places import build_places, refuse_workspace
from qwenterm.sandbox.backends import Backend, choose
from qwenterm.sandbox.confinement import Limits
from qwenterm.sandbox.run import Sandbox
from qwenterm.surroundings import describe
from qwenterm.tools.toolbox import build_tools

# Input past this would not fit a small window, and takes minutes to read on a CPU.
_ATTACHMENT_CHARS = 16_000
_MOST_INPUT = 64 << 20


def build_runtime(config: Config, workspace: Path, *, backend: Backend, model: Model) -> Runtime:
    """Return everything that turns in `workspace` need, from the settings."""
    home = Path(os.path.realpath(Path.home()))
    # The folder of model files is not secret, but configuration and state are not the model's.
    own = [configuration.user_path().parent, configuration.state_directory()]
    places = build_places(workspace, home=home, hidden=config.sandbox.hidden, own=own)
    settings = config.sandbox
    limits = Limits(
        seconds=settings.time_seconds,
        memory_bytes=settings.memory_mb << 20,
        processes=settings.processes,
        file_bytes=settings.file_size_mb << 20,
        output_bytes=settings.output_mb << 20,
    )
    hidden = tuple(
        Path(os.path.realpath(Path(path).expanduser())) for path in settings.hidden
    ) + tuple(Path(os.path.realpath(path)) for path in own)
    sandbox = Sandbox(backend, home, tuple(dict.fromkeys(hidden)), limits)
    tools = build_tools(sandbox, read_lines=config.tools.read_lines)
    return Runtime(
        model=model,
        tools={tool.name: tool for tool in tools},
        places=places,
        home=home,
        contained=backend.contained,
        settings=config.agent,
        mode=config.permission_mode,
        facts=describe(places.workspace),
        output_chars=config.tools.output_chars,
    )


def run_oneshot(
    prompt: str | None,
    flags: Mapping[str, Any],
    *,
    folder: str | None,
    form: Literal["text", "json", "stream-json"],
    schema: str | None,
) -> int:
    """Answer once; `folder` is --cd, `schema` a file. Returns the exit status."""
    from qwenterm.agent.prompt import clip  # noqa: PLC0415
    from qwenterm.ui.oneshot import run_oneshot as run  # noqa: PLC0415
    from qwenterm.ui.terminal import open_terminal  # noqa: PLC0415

    config = _load(flags)
    wanted = _schema(Path(schema)) if schema else None
    attachment = _piped_input()
    if not prompt:
        prompt, attachment = attachment, ""
    if not prompt or not prompt.strip():
        raise UsageError("nothing to answer: give a prompt with -p, or pipe one in")
    attachment = clip(attachment, _ATTACHMENT_CHARS, "save it as a file and ask about that")
    runtime, notices = _runtime(config, folder)
    for notice in notices:
        sys.stderr.write(f"qwenterm: {notice}\n")
    return asyncio.run(
        run(
            runtime,
            prompt,
            attachment=attachment,
            form=form,
            schema=wanted,
            terminal=open_terminal(),
        )
    )


def run_tui(prompt: str, flags: Mapping[str, Any], *, folder: str | None) -> int:
    """Open the terminal interface; returns the exit status."""
    from qwenterm.ui.tui.app import run_tui as run  # noqa: PLC0415 - textual is heavy

    config = _load(flags)
    runtime, notices = _runtime(config, folder)
    title = config.endpoint.model or config.model
    return run(runtime, first_prompt=prompt, title=title, notices=notices, theme=config.ui.theme)


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run a subcommand; returns the exit status."""
    if name == "models":
        from qwenterm.models import commands as models  # noqa: PLC0415

        return models.main(arguments, configuration.load())
    if name in ("host", "serve"):
        from qwenterm import host_commands  # noqa: PLC0415

        return host_commands.main(name, arguments)
    if name == "config":
        from qwenterm import config_commands  # noqa: PLC0415

        return config_commands.main(arguments)
    from qwenterm import doctor  # noqa: PLC0415

    return doctor.main(arguments)


def build_model(config: Config, notices: list[str]) -> Model:
    """Return who answers: the endpoint of the settings, else the resident host."""
    if config.endpoint.base_url:
        return Endpoint(config.endpoint)
    return ResidentHost(config, notices.append)


def _load(flags: Mapping[str, Any]) -> Config:
    config = configuration.load(flags=flags)
    if flags.get("model") and config.endpoint.base_url:
        # -m names the model of whoever answers, here the endpoint's.
        config = configuration.load(flags={**flags, "endpoint.model": flags["model"]})
    return config


def _runtime(config: Config, folder: str | None) -> tuple[Runtime, list[str]]:
    try:
        workspace = Path(folder).expanduser() if folder else Path.cwd()
    except FileNotFoundError:
        raise UsageError("this folder is gone; change to another, or name one with --cd") from None
    refuse_workspace(workspace, Path.home(), by_name=folder is not None)
    notices: list[str] = []
    backend = choose(config.sandbox.backend)
    if backend.weaker:
        notices.append(backend.weaker)
    model = build_model(config, notices)
    return build_runtime(config, workspace, backend=backend, model=model), notices


def _schema(path: Path) -> Mapping[str, Any]:
    import jsonschema  # noqa: PLC0415 - only with --schema

    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; --schema takes a JSON file") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from None
    try:
        jsonschema.Draft202012Validator.check_schema(value)
    except jsonschema.SchemaError as error:
        raise UsageError(f"{path}: not a JSON schema: {error.message}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: not a JSON schema: an object is needed")
    return cast("dict[str, Any]", value)


def _piped_input() -> str:
    """Return what was piped in, as text; empty when stdin is a terminal or closed."""
    if sys.stdin is None or sys.stdin.isatty():  # pyright: ignore[reportUnnecessaryComparison]
        return ""
    data = sys.stdin.buffer.read(_MOST_INPUT + 1)
    if len(data) > _MOST_INPUT:
        raise UsageError(f"more than {_MOST_INPUT >> 20} MB on stdin; save it as a file instead")
    if b"\0" in data[:8192]:
        raise UsageError("stdin is not text; save it as a file and ask about that")
    return data.decode("utf-8", "replace")
