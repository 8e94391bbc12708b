"""Small builders for the JSON schemas of tool arguments: short, because every token is paid for."""

from __future__ import annotations

from typing import Any


def parameters(required: int, **properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object whose first `required` properties must be given."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties)[:required],
        "additionalProperties": False,
    }


def text(description: str) -> dict[str, Any]:
    """Return the schema of a string."""
    return {"type": "string", "description": description}


def integer(description: str) -> dict[str, Any]:
    """Return the schema of a positive integer."""
    return {"type": "integer", "description": description, "minimum": 1}


def flag(description: str) -> dict[str, Any]:
    """Return the schema of a yes or no."""
    return {"type": "boolean", "description": description}


def choice(*values: str) -> dict[str, Any]:
    """Return the schema of one of `values`."""
    return {"type": "string", "enum": list(values)}
