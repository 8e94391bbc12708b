"""The commands that are typed with a slash, and the texts of the help and the empty state."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from textual.content import Content

from qwenterm.core.types import PermissionMode
from qwenterm.ui.render import sanitize

MODES = {
    PermissionMode.ASK: "ask before every change",
    PermissionMode.EDITS: "accept file changes in this folder",
    PermissionMode.AUTO: "accept all that the sandbox can contain",
    PermissionMode.PLAN: "change nothing",
}
COMMANDS = {
    "help": "what can be typed here",
    "mode": "how much may happen without a question: ask, edits, auto or plan",
    "clear": "begin a new conversation",
    "quit": "leave",
}
KEYS = {
    "Enter": "send; while the model works, the message waits",
    "Shift+Enter, Ctrl+J, Alt+Enter": "new line",
    "Up, Down": "earlier messages",
    "Esc": "stop the model",
    "Shift+Tab": "next permission mode",
    "Ctrl+O": "open or close tool calls and thinking (a click opens one)",
    "Page Up, Page Down": "scroll",
    "Ctrl+L": "clear the view; the conversation stays",
    "Ctrl+P": "all commands",
    "Ctrl+Q, twice Ctrl+C": "quit",
}
_COMMAND = re.compile(r"/(\w+)(?:[ \t]+(\S.*))?\s*")


@dataclass(frozen=True)
class Command:
    """A command as it was typed."""

    name: str
    argument: str


def parse(text: str) -> Command | None:
    """Return the command in `text`; None for a message, also one that begins with a path."""
    match = _COMMAND.fullmatch(text)
    return Command(match[1], (match[2] or "").strip()) if match else None


def help_text() -> str:
    """Return every command and key, one on a line."""
    lines = [f"/{name:6} {text}" for name, text in COMMANDS.items()]
    lines += ["", *(f"{text}: {keys}" for keys, text in KEYS.items())]
    return "\n".join(lines)


def hint(folder: Path, home: Path) -> Content:
    """Return what an empty conversation shows."""
    shown = f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)
    key = "bold"
    return Content.assemble(
        ("qwenterm", "bold $text-accent"),
        (f"  {sanitize(shown)}\n\n", "$foreground 60%"),
        ("Enter", key),
        " send   ",
        ("Ctrl+J", key),
        " new line   ",
        ("Esc", key),
        " stop\n",
        ("Shift+Tab", key),
        " permission mode   ",
        ("Ctrl+Q", key),
        " quit   ",
        ("/help", key),
        " more",
    )
