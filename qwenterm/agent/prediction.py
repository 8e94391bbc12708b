"""What the next answer will probably repeat: the file that the model looked at last.

The engine guesses tokens from it and verifies them, so an edit of a long file costs a fraction of
the time. The text is in the conversation already, but with line numbers and in another spelling.
"""

from __future__ import annotations

from pathlib import Path

from qwenterm.agent.runtime import Runtime

_MOST_BYTES = 128 * 1024
_FILE_TOOLS = frozenset({"read", "edit", "write"})


def predicted_text(runtime: Runtime) -> str:
    """Return the content of the file named in the latest call, if the model knows it; else ""."""
    for message in reversed(runtime.history):
        for call in reversed(message.tool_calls):
            name = call.arguments.get("path")
            if call.name in _FILE_TOOLS and isinstance(name, str):
                return _content(runtime, name)
    return ""


def _content(runtime: Runtime, name: str) -> str:
    path = (runtime.workspace / name).resolve()
    if path not in runtime.known:
        return ""
    return _text(path)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return ""
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
