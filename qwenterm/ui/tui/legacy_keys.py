"""Alt+Enter on terminals without the newer keyboard protocol, where it is Escape and Return.

Textual takes that for Enter, which would send a message that was to get another line. Its table
of sequences is private: should it move one day, Alt+Enter sends there and Ctrl+J still works.
"""

from __future__ import annotations

import contextlib
from typing import Any, cast

from textual.keys import Keys


def teach_alt_enter() -> None:
    """Have Escape and Return read as Ctrl+J, which is a new line."""
    with contextlib.suppress(ImportError):
        # A private module, imported where its absence does no harm.
        from textual import _ansi_sequences as sequences  # noqa: PLC0415

        table = cast("dict[str, Any]", sequences.ANSI_SEQUENCES_KEYS)
        table.setdefault("\x1b\r", (Keys.ControlJ,))
