"""The output parser: if it fails, users see raw calls in their answers or lose text."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenterm.chat.parser import Kind, OutputParser


def parse(text, cuts=(), *, thinking=False, calls=True):
    """Feed `text` cut at `cuts`; return the pieces, neighbours of one kind joined."""
    parser = OutputParser(thinking=thinking, calls=calls)
    bounds = [0, *sorted(cut for cut in set(cuts) if cut < len(text)), len(text)]
    pieces = []
    for start, end in itertools.pairwise(bounds):
        for piece in parser.feed(text[start:end]):
            pieces.append((piece.kind, piece.text))
            if piece.kind in (Kind.CALL_OPENED, Kind.FOREIGN_CALL):
                return joined(pieces), end
    return joined(pieces + [(piece.kind, piece.text) for piece in parser.finish()]), len(text)


def joined(pieces):
    result = []
    for kind, text in pieces:
        if result and result[-1][0] is kind:
            result[-1] = (kind, result[-1][1] + text)
        else:
            result.append((kind, text))
    return result


def shown(pieces):
    return "".join(text for kind, text in pieces if kind is Kind.TEXT)


PLAIN = [
    "Hello\n\nworld",
    "a < b and <tool is no tag",
    "Use this:\n```python\nprint({'name': 1})\n```\nDone.",
    '{"a": 1}',
    '```json\n{"named": 1}\n```',
    "x = {\n}",
]


@pytest.mark.parametrize("text", PLAIN)
@given(cuts=st.lists(st.integers(1, 60), max_size=12))
def test_plain_text_arrives_whole_however_it_is_cut(text, cuts):
    pieces, _ = parse(text, cuts)
    assert shown(pieces) == text
    assert {kind for kind, _ in pieces} == {Kind.TEXT}


FOREIGN = [
    '```json\n{\n  "name": "read", ',
    '{"name": "read"',
    '{{"name": "read"',
    '```\n{"name":"read"',
    "<function=read>",
    '<tools>\n{"name": "read"',
]


@pytest.mark.parametrize("call", FOREIGN)
@pytest.mark.parametrize("before", ["", "I will look.\n", "Sure:\n\n"])
@given(cuts=st.lists(st.integers(1, 40), max_size=12))
def test_a_call_in_another_notation_is_seen_before_any_of_it_shows(call, before, cuts):
    pieces, _ = parse(before + call, cuts)
    assert pieces[-1][0] is Kind.FOREIGN_CALL
    assert shown(pieces).strip() == before.strip()
    assert call.startswith(pieces[-1][1].lstrip()[:8])


@given(cuts=st.lists(st.integers(1, 60), max_size=12))
def test_an_opening_tag_ends_the_text(cuts):
    pieces, _ = parse("I will.\n<tool_call>\n{", cuts)
    assert shown(pieces).strip() == "I will."
    assert pieces[-1][0] is Kind.CALL_OPENED


@given(cuts=st.lists(st.integers(1, 60), max_size=12))
def test_thinking_is_kept_apart_from_the_answer(cuts):
    pieces, _ = parse("first\nsecond\n</think>\n\nAnswer <b>", cuts, thinking=True)
    assert pieces == [(Kind.THINKING, "first\nsecond"), (Kind.TEXT, "Answer <b>")]


def test_thinking_that_the_model_opens_itself_is_no_answer():
    pieces, _ = parse("<think>\nhm\n</think>\n\nok")
    assert (Kind.TEXT, "ok") in pieces
    assert "hm" not in shown(pieces)


def test_without_calls_everything_is_text():
    pieces, _ = parse('<tool_call>\n{"name": "x"}', calls=False)
    assert shown(pieces) == '<tool_call>\n{"name": "x"}'
