"""Text for terminals: control characters made visible, so that nothing steers the terminal.

The same for characters that hide or reorder text: what a person approves is what they see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

# C0 without tab and newline, DEL and C1; line separators that only some programs break at; marks
# that change the direction; characters of no width, except the joiners that scripts and emoji
# need; invisible copies of ASCII; halves of surrogate pairs, which no terminal's encoding knows.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    "\u2028\u2029"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\u00ad\u200b\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
    "\ud800-\udfff]"
)


def sanitize(text: str) -> str:
    """Return `text` with every unsafe character as a visible placeholder.

    Newlines and tabs stay; a carriage return before a newline goes.
    """
    return _UNSAFE.sub(_placeholder, text.replace("\r\n", "\n"))


def _placeholder(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def call_summary(arguments: Mapping[str, Any], leave_out: Collection[str] = ()) -> str:
    """Return what a call is about on one line: its arguments, without their names."""
    parts = [
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in arguments.items()
        if name not in leave_out
    ]
    short = " ".join(part if len(part) <= 80 else part[:77] + "..." for part in parts)
    return sanitize(short.replace("\n", " ⏎ ").replace("\t", " "))
