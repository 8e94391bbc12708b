"""`read`, `write`, `edit`: files of the workspace, as text.

Nothing is written here: changes come back as effects, which `dispatch` has approved and applied.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenterm.core.types import Effect, FileChange, Intent, Tool, ToolContext, ToolResult
from qwenterm.permissions.places import resolve
from qwenterm.tools.anchors import AnchorError, replace_anchor
from qwenterm.tools.schema import flag, integer, parameters, text

LARGEST_FILE = 8 << 20
_SURE_CHARS = 30
_SHOWN_LINES = 80
_SHOWN_CHANGES = 16
_NUMBERED = re.compile(r"^ *\d+\t", re.M)


def read_tool(read_lines: int, home: Path) -> Tool:
    """Return `read`; at most `read_lines` lines come back at once."""

    async def run(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        path = resolve(arguments["path"], context.workspace, home)
        body, problem = load_text(path)
        if problem:
            return ToolResult(problem, is_error=True)
        lines = _lines(body)
        if not lines:
            return ToolResult("(the file is empty)")
        start = max(1, int(arguments.get("start") or 1))
        if start > len(lines):
            return ToolResult(f"the file has only {len(lines)} lines", is_error=True)
        end = min(len(lines), int(arguments.get("end") or len(lines)), start + read_lines - 1)
        shown = [f"{n}\t{lines[n - 1]}" for n in range(start, max(start, end) + 1)]
        if end < len(lines) and not arguments.get("end"):
            shown.append(f"(lines {start}-{end} of {len(lines)}; read on with start={end + 1})")
        if len(shown) == len(lines):
            context.known.add(path)
        return ToolResult("\n".join(shown))

    return Tool(
        "read",
        "Read a text file, with line numbers.",
        parameters(
            1, path=text("file path"), start=integer("first line"), end=integer("last line")
        ),
        lambda arguments, workspace: (_read_intent(arguments, workspace, home),),
        run,
    )


def write_tool(home: Path) -> Tool:
    """Return `write`: create a file or replace all of it."""

    async def run(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        path = resolve(arguments["path"], context.workspace, home)
        before, problem = load_bytes(path)
        if problem and before is None and os.path.lexists(path):
            return ToolResult(problem, is_error=True)
        content = str(arguments["content"])
        if content and not content.endswith("\n"):
            content += "\n"
        after = content.encode()
        if before == after:
            return ToolResult("the file already has exactly this content; nothing to do")
        if before and path not in context.known:
            return _unknown(path, before.decode("utf-8", "replace"), context)
        context.known.add(path)
        verb = "created" if before is None else "replaced"
        count = content.count("\n")
        effect = Effect((FileChange(path, before, after),))
        return ToolResult(f"{verb} {arguments['path']} ({count} lines)", effect=effect)

    return Tool(
        "write",
        "Create a file, or replace a whole file.",
        parameters(2, path=text("file path"), content=text("the whole content")),
        lambda arguments, workspace: (_write_intent(arguments, workspace, home),),
        run,
    )


def edit_tool(home: Path) -> Tool:
    """Return `edit`: replace one piece of a file."""

    async def run(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        path = resolve(arguments["path"], context.workspace, home)
        body, problem = load_text(path)
        if problem:
            return ToolResult(problem, is_error=True)
        old, new = _without_numbers(str(arguments["old"])), _without_numbers(str(arguments["new"]))
        if Path(old.strip()).name == path.name and old not in body:
            hint = "edit changes a file's text; to rename the file call shell: mv OLD NEW"
            return ToolResult(hint, is_error=True)
        short = len(_lines(body)) <= _SHOWN_LINES
        if short and path not in context.known and not _sure(old, body):
            return _unknown(path, body, context)
        try:
            changed, line = replace_anchor(body, old, new, everywhere=bool(arguments.get("all")))
        except AnchorError as error:
            return ToolResult(str(error), is_error=True)
        if changed == body:
            return ToolResult("old and new are the same: the file stays as it is", is_error=True)
        effect = Effect((FileChange(path, body.encode(), changed.encode()),))
        what = "\n".join(_changed_lines(body, changed))
        return ToolResult(f"edited {arguments['path']} at line {line}\n{what}", effect=effect)

    return Tool(
        "edit",
        "Replace one exact piece of a file. `old` is copied from the file and occurs once; "
        "with an empty `old`, `new` is added at the end.",
        parameters(
            3,
            path=text("file path"),
            old=text("text to replace"),
            new=text("new text"),
            all=flag("replace every occurrence"),
        ),
        lambda arguments, workspace: (_write_intent(arguments, workspace, home),),
        run,
    )


def _unknown(path: Path, body: str, context: ToolContext) -> ToolResult:
    """Return the file instead of changing it blindly; the next call may then do it."""
    lines = _lines(body)
    if len(lines) > _SHOWN_LINES:
        problem = f"{path.name} has {len(lines)} lines, and you have not read them all; use edit"
        return ToolResult(problem, is_error=True)
    context.known.add(path)
    shown = "\n".join(f"{number}\t{line}" for number, line in enumerate(lines, start=1))
    return ToolResult(
        f"You have not read {path.name} yet, so nothing was changed. It is:\n{shown}\n"
        "Now make the edit: copy whole lines of it into `old`.",
        is_error=True,
    )


def _sure(old: str, body: str) -> bool:
    """Tell whether `old` was copied: a shorter piece was guessed, and may be part of anything."""
    return len(old.strip()) >= _SURE_CHARS or old.strip() in {
        line.strip() for line in body.split("\n")
    }


def _lines(body: str) -> list[str]:
    lines = body.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _changed_lines(before: str, after: str) -> list[str]:
    """Return the lines that differ, marked as in a diff."""
    found = difflib.unified_diff(_lines(before), _lines(after), lineterm="", n=0)
    changed = [line for line in found if not line.startswith(("---", "+++", "@@"))]
    more = len(changed) - _SHOWN_CHANGES
    return changed[:_SHOWN_CHANGES] + ([f"(and {more} lines more)"] if more > 0 else [])


def load_bytes(path: Path) -> tuple[bytes | None, str]:
    """Return a regular file's content, or None and what is wrong, in words for the model."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, f"{path.name}: no such file; use `list` or `search` to find it"
    except OSError as error:
        return None, f"{path.name}: {error.strerror}"
    facts = os.fstat(descriptor)
    if stat.S_ISDIR(facts.st_mode):
        os.close(descriptor)
        return None, f"{path.name} is a folder; use `list`"
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(facts.st_mode):
            return None, f"{path.name} is not a regular file"
        if facts.st_size > LARGEST_FILE:
            return None, f"{path.name} is too large ({facts.st_size} bytes); use `search` or shell"
        return file.read(LARGEST_FILE + 1), ""


def load_text(path: Path) -> tuple[str, str]:
    """Return a text file's content, or an empty text and what is wrong."""
    data, problem = load_bytes(path)
    if data is None:
        return "", problem
    if b"\0" in data[:8192]:
        return "", f"{path.name} is a binary file of {len(data)} bytes"
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        return "", f"{path.name} is not UTF-8 text"


def _without_numbers(text: str) -> str:
    """Drop the line numbers of `read` when a model copied them with every line."""
    lines = [line for line in text.split("\n") if line]
    if lines and all(_NUMBERED.match(line) for line in lines):
        return _NUMBERED.sub("", text)
    return text


def _read_intent(arguments: Mapping[str, Any], workspace: Path, home: Path) -> Intent:
    return Intent("read", str(resolve(arguments["path"], workspace, home)))


def _write_intent(arguments: Mapping[str, Any], workspace: Path, home: Path) -> Intent:
    return Intent("write", str(resolve(arguments["path"], workspace, home)))
