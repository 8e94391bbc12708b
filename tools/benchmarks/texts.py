"""What the measurements say to the models: made here, so that anybody gets the same."""

from __future__ import annotations

import inspect
import random
import textwrap
from typing import Any

WORDS = """the a file folder value function returns list index error line when test name path
reads writes open close model token state cache first last none each other before after under"""

PLAIN = {"temperature": 0, "speculative.n_max": 0}

READ = {
    "type": "function",
    "function": {
        "name": "read",
        "description": "Read a file.",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string"}},
            "required": ["path"],
        },
    },
}
WRITE = {
    "type": "function",
    "function": {
        "name": "write",
        "description": "Write a file.",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
            "required": ["path", "content"],
        },
    },
}


def words(count: int, seed: int) -> str:
    """Return text of about `count` tokens that no other seed shares."""
    dice, choices = random.Random(seed), WORDS.split()
    return " ".join(dice.choice(choices) for _ in range(count))


def user(text: str) -> dict[str, Any]:
    """Return a user's message."""
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, Any]:
    """Return a system message."""
    return {"role": "system", "content": text}


def code(lines: int) -> str:
    """Return the first lines of a Python file that everybody has."""
    return "\n".join(inspect.getsource(textwrap).split("\n")[:lines])


SESSION = [
    "What does this project do?",
    "Which file holds the settings?",
    "How are errors reported?",
    "Where is the command line read?",
    "What would break if the cache were removed?",
    "Name the largest module.",
    "How is the cache kept small?",
    "What happens when two programs start at once?",
    "Which tests cover the parser?",
    "How long does a start take?",
    "What is missing in the documentation?",
    "Sum up what we found.",
]
