"""`qwenterm config show|path|set`: the settings as they are, and changing one.

`set` writes the user file with tomlkit, so comments and order stay; a value that would not load
is refused before anything is written.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli
import tomlkit
from tomlkit.exceptions import TOMLKitError

from qwenterm import config as configuration
from qwenterm.core.errors import UsageError


def main(arguments: Sequence[str]) -> int:
    """Run `config ...`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qwenterm config", description="The settings.")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("show", help="every setting with its value in force")
    actions.add_parser("path", help="where the file is")
    setting = actions.add_parser("set", help="change one setting in the file")
    setting.add_argument("key", help="for example agent.max_steps")
    setting.add_argument("value", help="a TOML value; text needs no quotes")
    options = parser.parse_args(arguments)
    if options.action == "path":
        sys.stdout.write(f"{configuration.user_path()}\n")
    elif options.action == "show":
        sys.stdout.write(shown())
    else:
        change(configuration.user_path(), options.key, options.value)
    return 0


def shown() -> str:
    """Return the settings in force as TOML."""
    values = configuration.load().model_dump(mode="json")
    return tomlkit.dumps(values)  # pyright: ignore[reportUnknownMemberType]


def change(path: Path, key: str, text: str) -> None:
    """Set `key` (dotted) to `text` in the file; raises `UsageError`, the file then unchanged."""
    # A link into a folder of settings stays one.
    path = Path(os.path.realpath(path))
    already = _problem(path)
    problems: list[UsageError] = []
    for value in _values(text):
        changed = _changed(path, key, value, already)
        problem = _problem_of(changed)
        if problem is None:
            _replace(path, changed)
            return
        problems.append(problem)
    raise already or problems[0]


def _changed(path: Path, key: str, value: Any, already: UsageError | None) -> str:
    """Return the file's text with the new value, with all comments."""
    try:
        document: Any = tomlkit.parse(_text(path))
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise already or UsageError(f"{path}: {error}") from None
    table: Any = document
    *sections, last = key.split(".")
    for section in sections:
        if section not in table:
            table[section] = tomlkit.table()
        table = table[section]
        if not hasattr(table, "items"):
            raise UsageError(f"{key}: `{section}` is a value, not a section")
    table[last] = value
    return tomlkit.dumps(document)  # pyright: ignore[reportUnknownMemberType]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""


def _problem(path: Path) -> UsageError | None:
    """Return what is wrong with the file, None if it loads."""
    try:
        configuration.load(path, environ={})
    except UsageError as error:
        return error
    return None


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, name)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _values(text: str) -> list[Any]:
    """Return what `text` can mean: a TOML value first, else itself, as a model's name may be 7."""
    try:
        return [tomli.loads(f"value = {text}")["value"], text]
    except tomli.TOMLDecodeError:
        return [text]


def _problem_of(text: str) -> UsageError | None:
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder) / "config.toml"
        candidate.write_text(text, encoding="utf-8")
        problem = _problem(candidate)
    # The temporary file's name says nothing to a person.
    return UsageError(str(problem).split(": ", 1)[-1]) if problem else None
