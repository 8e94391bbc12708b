"""`list` and `search`: what is in the workspace, by ripgrep, so .gitignore is respected.

ripgrep runs in the sandbox like any command: a search of a large folder must not read secrets.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwenterm.core.types import Access, Intent, Tool, ToolContext, ToolResult
from qwenterm.permissions.places import inside, resolve
from qwenterm.sandbox.run import Completed, Sandbox, run
from qwenterm.tools.schema import parameters, text

_MOST_ENTRIES = 200
_MOST_MATCHES = 100
_LONGEST_LINE = 240
_FEW_MATCHES = 2
_NOTHING_FOUND = 1


def list_tool(sandbox: Sandbox) -> Tool:
    """Return `list`: a folder's entries, or the files below it that match a pattern."""

    async def execute(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        folder = resolve(arguments.get("path") or ".", context.workspace, sandbox.home)
        pattern = str(arguments.get("pattern") or "")
        if folder.is_file():
            return ToolResult(f"{folder.name} is a file of {folder.stat().st_size} bytes")
        if not folder.is_dir():
            return ToolResult(f"{arguments.get('path')}: no such folder", is_error=True)
        if not pattern:
            return _entries(folder)
        argv = ["--files", "--hidden", "--sort", "path", "-g", pattern, "-g", "!.git"]
        done = await _ripgrep(sandbox, argv, folder, context)
        if done.exit_code > _NOTHING_FOUND:
            return ToolResult(done.output.strip()[:500], is_error=True)
        found = done.output.splitlines()
        if not found:
            return ToolResult(f"no file matches {pattern}")
        return ToolResult(_counted(found, f"files match {pattern}"))

    return Tool(
        "list",
        "List a folder. With `pattern` (such as *.py): all matching files below it, counted.",
        parameters(0, path=text("folder, default ."), pattern=text("glob")),
        lambda arguments, workspace: (
            Intent("read", str(resolve(arguments.get("path") or ".", workspace, sandbox.home))),
        ),
        execute,
    )


def search_tool(sandbox: Sandbox) -> Tool:
    """Return `search`: lines that match a regular expression."""

    async def execute(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        where = resolve(arguments.get("path") or ".", context.workspace, sandbox.home)
        if not where.exists():
            return ToolResult(f"{arguments.get('path')}: no such file or folder", is_error=True)
        pattern = str(arguments["pattern"])
        argv = ["--line-number", "--no-heading", "--with-filename", "--sort", "path"]
        argv += ["--max-columns", str(_LONGEST_LINE), "--max-columns-preview", "--smart-case"]
        done = await _ripgrep(sandbox, [*argv, "-e", pattern], where, context)
        if done.exit_code > _NOTHING_FOUND and "regex parse error" in done.output:
            # A model often means the text itself.
            argv.append("--fixed-strings")
            done = await _ripgrep(sandbox, [*argv, "-e", pattern], where, context)
        if done.exit_code > _NOTHING_FOUND:
            return ToolResult(done.output.strip()[:500], is_error=True)
        found = done.output.splitlines()
        if not found:
            return ToolResult(f"nothing matches {pattern!r}")
        shown = _counted(found, "matching lines", _MOST_MATCHES)
        if len(found) <= _FEW_MATCHES:
            # A definition alone says little: what is around it saves the next call.
            around = await _ripgrep(
                sandbox, [*argv, "-B", "2", "-A", "10", "-e", pattern], where, context
            )
            if around.exit_code == 0:
                shown = f"{len(found)} matching lines, with the lines around:\n"
                shown += around.output.rstrip("\n")
        return ToolResult(shown)

    return Tool(
        "search",
        "Search file contents with a regular expression; gives file:line:text.",
        parameters(1, pattern=text("regex"), path=text("file or folder, default .")),
        lambda arguments, workspace: (
            Intent("read", str(resolve(arguments.get("path") or ".", workspace, sandbox.home))),
        ),
        execute,
    )


async def _ripgrep(
    sandbox: Sandbox, options: Sequence[str], where: Path, context: ToolContext
) -> Completed:
    program = ripgrep_path()
    argv = [program, "--no-config", "--color", "never", *options]
    if not sandbox.backend.contained:
        for path in sandbox.hidden:
            if inside(path, where):
                argv += ["-g", f"!/{path.relative_to(where).as_posix()}"]
    # Relative names are what the model will use in its next call.
    base = context.workspace if inside(where, context.workspace) else where
    if where != base:
        argv.append(os.path.relpath(where, base))
    base = base if base.is_dir() else base.parent
    return await run(
        sandbox,
        argv,
        workspace=base,
        access=Access.READ_ONLY,
        visible=[Path(os.path.realpath(program))],
    )


def ripgrep_path() -> str:
    """Return the ripgrep program that was installed with qwenterm, else the one on PATH."""
    beside = Path(sys.executable).parent / "rg"
    return str(beside) if beside.exists() else shutil.which("rg") or "rg"


def _entries(folder: Path) -> ToolResult:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        return ToolResult(f"{folder.name}: {error.strerror}", is_error=True)
    lines: list[str] = []
    for entry in entries:
        if entry.is_dir():
            lines.append(f"{entry.name}/")
        else:
            lines.append(f"{entry.name} ({_size(entry)} bytes)")
    return ToolResult(_counted(lines, "entries") if lines else "(the folder is empty)")


def _size(entry: os.DirEntry[str]) -> str:
    try:
        return str(entry.stat(follow_symlinks=False).st_size)
    except OSError:
        return "?"


def _counted(lines: Sequence[str], what: str, most: int = _MOST_ENTRIES) -> str:
    shown = list(lines[:most])
    if len(lines) > most:
        shown.append(f"(the first {most} of {len(lines)}; narrow it to see the rest)")
    return "\n".join([f"{len(lines)} {what}:", *shown])
