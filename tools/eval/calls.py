"""Ten requests that cannot be answered without a tool: is the first thing a well-formed call?

They differ from the everyday tasks and say nothing about a tool. Well-formed means: a known tool,
arguments that its schema accepts, and no trace of a call in the text that the user sees.
"""

from __future__ import annotations

import re

PROMPTS: tuple[str, ...] = (
    "What does the function total in shop/prices.py return for an empty list?",
    "List everything in the data folder.",
    "What is the value of pageSize in the settings?",
    "Show me the first three lines of the README.",
    "Does any file mention a label printer?",
    "How much free memory does this machine have?",
    "Which branch am I on and is anything not committed?",
    "Write the word ready into status.txt.",
    "Put a line 'import sys' at the top of shop/cli.py.",
    "Run the unit tests and tell me how many there are.",
)

_LEAK = re.compile(
    r"<tool_call>|</tool_call>|<function=|```json|\"arguments\"\s*:|\"name\"\s*:\s*\""
)


def leaked(text: str) -> bool:
    """Tell whether the text shows a piece of a call."""
    return bool(_LEAK.search(text))
