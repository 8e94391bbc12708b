"""What small models need to be told in the middle of a turn, and when."""

from __future__ import annotations

import re

SCHEMA_PROMPT = "Give your answer to my request as JSON."

_COMMAND_BLOCK = re.compile(r"```(?:bash|sh|shell|console|zsh)\b")
_ADVICE = re.compile(
    r"\b(you can (?:use|run|execute|try)|run the following|use the following command"
    r"|(?:I|we) (?:will|can|need to|should) (?:use|run|call|execute)"
    r"|let me (?:use|run|check|look))\b",
    re.I,
)


def doable(text: str) -> bool:
    """Tell whether an answer leaves to the user, or announces, what a tool could have done."""
    return bool(_COMMAND_BLOCK.search(text) or _ADVICE.search(text))


def repeated_text(name: str, *, last: bool) -> str:
    """Return what a call gets as its result when it was made before and nothing has changed."""
    text = f"You made this exact {name} call before and nothing has changed since."
    if last:
        return f"{text} Answer the user now with what you know."
    return f"{text} Use the result you have: answer the user, or take a different step."
