"""The two call syntaxes that Qwen models write, as grammars and as readers.

Qwen2.5 puts one JSON object between `<tool_call>` and `</tool_call>`; Qwen3.5 puts raw values
between tags there. The right one is recognised from the model's own chat template. A grammar
covers everything after the opening tag up to and including the closing one, so that a call names
a real tool and has valid arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from qwenterm.core.gbnf import choice, literal

OPEN, CLOSE = "<tool_call>", "</tool_call>"

_JSON_OPENING, _JSON_CLOSING = '\n{"name": ', "}\n</tool_call>"
_TAGGED_OPENING, _TAGGED_CLOSING = "\n<function=", "</function>\n</tool_call>"
_END_OF_VALUE = "\n</parameter>\n"

SchemaRules = Callable[[Mapping[str, Mapping[str, Any]]], str]


@dataclass(frozen=True)
class ToolSpec:
    """A tool as the request describes it; `parameters` is a JSON schema of an object."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class CallSyntax:
    """How calls are written.

    `grammar(tools, schema_rules)` returns GBNF for the text after the opening tag. `read(text,
    tools)` returns (name, arguments) of such a text and raises ValueError for anything else.
    `opening` is what follows the opening tag in every call, for steering into one; `closed(text)`
    tells whether the call is complete.
    """

    name: str
    opening: str
    closed: Callable[[str], bool]
    grammar: Callable[[Sequence[ToolSpec], SchemaRules], str]
    read: Callable[[str, Sequence[ToolSpec]], tuple[str, dict[str, Any]]]


def recognise(template: str) -> CallSyntax:
    """Return the syntax that a chat template uses for calls (JSON when it says nothing)."""
    return TAGGED if "<function=" in template else JSON


# -- Qwen2.5: a JSON object ------------------------------------------------------------------------


def _json_grammar(tools: Sequence[ToolSpec], schema_rules: SchemaRules) -> str:
    calls = [
        literal(f'{_quoted(tool.name)}, "arguments": ') + f" arguments-{number}"
        for number, tool in enumerate(tools)
    ]
    root = f"root ::= {literal(_JSON_OPENING)} call {literal(_JSON_CLOSING)}"
    schemas = {f"arguments-{number}": tool.parameters for number, tool in enumerate(tools)}
    return "\n".join([root, f"call ::= {' | '.join(calls)}", schema_rules(schemas)])


def _read_json(text: str, tools: Sequence[ToolSpec]) -> tuple[str, dict[str, Any]]:
    body = text.strip().removesuffix(CLOSE).strip()
    call = json.loads(body, strict=False)
    if not isinstance(call, dict):
        raise ValueError("a call must be a JSON object")
    fields = cast("dict[str, Any]", call)
    name, arguments = fields.get("name"), fields.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError("a call needs a name and an object of arguments")
    return name, cast("dict[str, Any]", arguments)


# -- Qwen3.5: tags around raw values ---------------------------------------------------------------


def _tagged_grammar(tools: Sequence[ToolSpec], schema_rules: SchemaRules) -> str:
    lines: list[str] = []
    calls: list[str] = []
    schemas: dict[str, Mapping[str, Any]] = {}
    for number, tool in enumerate(tools):
        required = set(tool.parameters.get("required", ()))
        parts: list[str] = []
        for index, (key, schema) in enumerate(_properties(tool).items()):
            rule, tag = f"parameter-{number}-{index}", literal(f"<parameter={key}>\n")
            value = _raw_value(schema)
            if not value:
                value = f"value-{number}-{index}"
                schemas[value] = schema
            if value == "raw-text":  # the rule ends with the closing tag itself
                lines.append(f"{rule} ::= {tag} raw-text")
            else:
                lines.append(f"{rule} ::= {tag} {value} {literal(_END_OF_VALUE)}")
            parts.append(rule if key in required else f"{rule}?")
        name = literal(f"{tool.name}>\n")
        calls.append(f"{name} {' '.join(parts)}")
    root = f"root ::= {literal(_TAGGED_OPENING)} call {literal(_TAGGED_CLOSING)}"
    rules = [root, f"call ::= {' | '.join(calls)}", *lines, _text_until(_END_OF_VALUE)]
    if schemas:
        rules.append(schema_rules(schemas))
    return "\n".join(rules)


def _raw_value(schema: Mapping[str, Any]) -> str:
    """Return the GBNF of a value that is written raw; empty for one that is written as JSON."""
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices and all(isinstance(value, str) for value in choices):
        return choice(choices)
    return "raw-text" if schema.get("type") == "string" and not choices else ""


def _text_until(end: str) -> str:
    """Return rules `raw-text`: any text up to and including the first `end`.

    GBNF has no negation, so this is the automaton of Knuth, Morris and Pratt: state n has seen
    the first n characters of `end`.
    """
    rules: list[str] = []
    alphabet = list(dict.fromkeys(end))
    for state in range(len(end)):
        name = "raw-text" if state == 0 else f"raw-text-{state}"
        others = "".join(_in_class(char) for char in alphabet)
        options = [f"[^{others}] raw-text"]
        for char in alphabet:
            seen = end[:state] + char
            length = min(len(seen), len(end))
            while length and not seen.endswith(end[:length]):
                length -= 1
            target = "" if length == len(end) else "raw-text" + (f"-{length}" if length else "")
            options.append(f"{literal(char)} {target}".strip())
        rules.append(f"{name} ::= {' | '.join(options)}")
    return "\n".join(rules)


_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>\n(.*)</function>\s*(?:</tool_call>)?\s*", re.S)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n(.*?)\n</parameter>\n", re.S)
_EMPTY_CALL = re.compile(r"\n<function=[^>\n]+>\n</function>\n</tool_call>")


def _tagged_closed(text: str) -> bool:
    # A value may quote the closing tag, but never after the end of a value.
    if text.endswith(_END_OF_VALUE[1:] + _TAGGED_CLOSING):
        return True
    return bool(_EMPTY_CALL.fullmatch(text))


def _read_tagged(text: str, tools: Sequence[ToolSpec]) -> tuple[str, dict[str, Any]]:
    match = _FUNCTION.fullmatch(text)
    if not match:
        raise ValueError("a call must be one <function=...> block")
    name, body = match.group(1).strip(), match.group(2)
    schemas = {tool.name: _properties(tool) for tool in tools}.get(name, {})
    arguments: dict[str, Any] = {}
    for parameter in _PARAMETER.finditer(body):
        key, raw = parameter.group(1).strip(), parameter.group(2)
        arguments[key] = _typed(raw, schemas.get(key, {}))
    return name, arguments


def _properties(tool: ToolSpec) -> Mapping[str, Mapping[str, Any]]:
    return cast("Mapping[str, Mapping[str, Any]]", tool.parameters.get("properties") or {})


def _typed(raw: str, schema: Mapping[str, Any]) -> Any:
    if schema.get("type", "string") == "string":
        return raw
    # The template prints booleans and nothing as Python does, so the model may copy that.
    plain = {"True": True, "False": False, "None": None}.get(raw.strip(), raw)
    if not isinstance(plain, str):
        return plain
    try:
        return json.loads(plain)
    except ValueError:
        return raw


# -- GBNF ------------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _in_class(char: str) -> str:
    return {"\n": "\\n", "]": "\\]", "[": "\\[", "\\": "\\\\", "^": "\\^", "-": "\\-"}.get(
        char, char
    )


JSON = CallSyntax(
    "json",
    _JSON_OPENING,
    # Strings in JSON have no raw newline, so this can only be the end.
    lambda text: text.endswith(_JSON_CLOSING),
    _json_grammar,
    _read_json,
)
TAGGED = CallSyntax("tagged", _TAGGED_OPENING, _tagged_closed, _tagged_grammar, _read_tagged)
