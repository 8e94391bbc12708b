"""`qwenterm config show|path|set`: the settings as they are, and changing one.

`set` writes the user file with tomlkit, so comments and order stay; a value that would not load
is refused before anything is written.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli
import tomlkit

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
    try:
        current = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        current = ""
    document: Any = tomlkit.parse(current)
    table: Any = document
    *sections, last = key.split(".")
    for section in sections:
        if section not in table:
            table[section] = tomlkit.table()
        table = table[section]
        if not hasattr(table, "items"):
            raise UsageError(f"{key}: `{section}` is a value, not a section")
    table[last] = _value(text)
    changed = tomlkit.dumps(document)  # pyright: ignore[reportUnknownMemberType]
    _checked(changed)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(changed)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)


def _value(text: str) -> Any:
    try:
        return tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        return text


def _checked(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder) / "config.toml"
        candidate.write_text(text, encoding="utf-8")
        try:
            configuration.load(candidate, environ={})
        except UsageError as error:
            # The temporary file's name says nothing to a person.
            raise UsageError(str(error).split(": ", 1)[-1]) from None
