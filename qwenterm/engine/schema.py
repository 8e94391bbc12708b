"""JSON schemas as GBNF rules, by llama.cpp's converter with what it leaves out.

It ignores `minimum`, and a model does ask for line 0. It does not escape backslashes, so a choice
or a name with a quotation mark in it gives a grammar that cannot be read. It writes an enumeration
as one alternative after the other, all of which the grammar carries along with each token; here it
is a tree of common beginnings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from qwenterm.core.gbnf import choice
from qwenterm.core.gbnf import literal as gbnf_literal
from qwenterm.engine.native import SchemaConverter


def schema_rules(schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """Return GBNF rules, one named after each key of `schemas`, for JSON text obeying that schema.

    Rule names may hold letters, digits and dashes. Raises `ValueError` for a schema that
    llama.cpp's converter does not understand.
    """
    order: dict[str, int] = {}
    converter: Any = _Converter(
        prop_order=order, allow_fetch=False, dotall=False, raw_pattern=False
    )
    lines: list[str] = []
    for name, schema in schemas.items():
        try:
            resolved = converter.resolve_refs(json.loads(json.dumps(schema)), name)
            rule = converter.visit(resolved, f"{name}-value")
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"unsupported JSON schema for {name}: {error}") from None
        lines.append(f"{name} ::= {rule}")
    return "\n".join([*lines, str(converter.format_grammar())])


class _Converter(SchemaConverter):
    """llama.cpp's converter with lower bounds of whole numbers (0 and 1) and right literals.

    Other bounds are checked only when the call is validated.
    """

    def visit(self, schema: Any, name: str) -> Any:
        """Return the rule's name for a schema."""
        base: Any = self
        minimum = schema.get("minimum")
        plain = schema.get("type") == "integer" and not {"enum", "const", "$ref"} & set(schema)
        if plain and isinstance(minimum, int) and minimum >= 0:
            digits = "[1-9] [0-9]{0,15}" if minimum else '("0" | [1-9] [0-9]{0,15})'
            return base._add_rule(name or "root", f"{digits} space")
        choices: Any = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(choices, list) and choices:
            values = cast("list[Any]", choices)
            texts = [json.dumps(item, ensure_ascii=False) for item in values]
            return base._add_rule(name or "root", f"{choice(texts)} space")
        parent: Any = super()
        return parent.visit(schema, name)

    def _format_literal(self, literal: str) -> str:
        return gbnf_literal(literal)
