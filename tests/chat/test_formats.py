"""Call syntaxes: if they fail, a call is not understood or an argument arrives changed."""

import pytest

from qwenterm.chat.formats import JSON, TAGGED, ToolSpec, recognise

EDIT = ToolSpec(
    "edit",
    {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "count": {"type": "integer"},
            "all": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["path"],
    },
)


def tagged(**values):
    body = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"\n<function=edit>\n{body}</function>\n</tool_call>"


def test_the_syntax_is_recognised_from_the_template(qwen35_template):
    assert recognise(qwen35_template) is TAGGED
    assert recognise('<tool_call>\n{"name": <function-name>}') is JSON


@pytest.mark.parametrize(
    "value",
    ["a.py", "", "two\nlines", "  indented\n", "</function>", "\n</tool_call>", "x</parameter>y"],
)
def test_raw_values_arrive_unchanged(value):
    assert TAGGED.read(tagged(path=value), [EDIT]) == ("edit", {"path": value})


def test_raw_values_get_the_type_of_their_schema():
    text = tagged(path="3", count="3", all="True", tags='["a", "b"]')
    expected = {"path": "3", "count": 3, "all": True, "tags": ["a", "b"]}
    assert TAGGED.read(text, [EDIT])[1] == expected


def test_a_tagged_call_ends_only_at_its_real_end():
    assert TAGGED.closed(tagged(path="x"))
    assert TAGGED.closed("\n<function=edit>\n</function>\n</tool_call>")
    quoted = "\n<function=edit>\n<parameter=path>\nsee </function>\n</tool_call>"
    assert not TAGGED.closed(quoted)


def test_json_calls_are_read():
    text = '\n{"name": "edit", "arguments": {"path": "a\\nb"}}\n</tool_call>'
    assert JSON.closed(text)
    assert JSON.read(text, [EDIT]) == ("edit", {"path": "a\nb"})


@pytest.mark.parametrize("text", ["[]", '{"name": 1, "arguments": {}}', '{"name": "x"}', "{"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError):
        JSON.read(text, [EDIT])
