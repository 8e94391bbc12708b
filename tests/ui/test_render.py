"""If these fail, a file or a model can steer the user's terminal or hide what is approved."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenterm.ui.render import sanitize


@given(st.text(st.characters(), max_size=200))
def test_no_character_that_steers_hides_or_reorders_gets_through(text):
    shown = sanitize(text)
    for character in shown:
        assert unicodedata.category(character) not in ("Cc", "Cs") or character in "\t\n"
        assert unicodedata.bidirectional(character) not in (
            *("LRE", "RLE", "LRO", "RLO", "PDF"),
            *("LRI", "RLI", "FSI", "PDI"),
        )
    shown.encode("utf-8")
    assert shown.count("\n") == text.count("\n")


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_every_control_character_is_seen_instead_of_sent(code):
    character = chr(code)
    if character in "\t\n":
        assert sanitize(character) == character
    else:
        assert character not in sanitize(f"a{character}b")
        assert len(sanitize(f"a{character}b")) >= 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]52;c;Y3VybA==\x07", "␛]52;c;Y3VybA==␇"),
        ("\x9b31m", "⟨U+009B⟩31m"),
        ("rm -rf x\rls", "rm -rf x␍ls"),
        ("a\x7fb", "a␡b"),
        ("a\u202egnp.exe", "a⟨U+202E⟩gnp.exe"),
        ("a\u2066b", "a⟨U+2066⟩b"),
        ("a\u061cb", "a⟨U+061C⟩b"),
        ("zero\u200bwidth", "zero⟨U+200B⟩width"),
        ("\ufeffimport os", "⟨U+FEFF⟩import os"),
        ("ok\U000e0072\U000e006d", "ok⟨U+E0072⟩⟨U+E006D⟩"),
        ("one\u2028two", "one⟨U+2028⟩two"),
        ("half\ud83d", "half⟨U+D83D⟩"),
    ],
)
def test_what_a_placeholder_looks_like(text, shown):
    assert sanitize(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "a\tb\nc\n\n",
        "Grüße, 世界, שלום, مرحبا, हिन्दी",
        "👩‍👩‍👧 🏳️‍🌈 ❤️",
        "می‌خواهم",
        "é e\u0301",
        "├── src  │ x ≤ y · « » “ ”",
        "[red]not markup[/red]",
        "non\u00a0breaking",
    ],
)
def test_what_is_text_stays_as_it_is(text):
    assert sanitize(text) == text


def test_the_line_ends_of_windows_are_line_ends():
    assert sanitize("a\r\nb\r\n") == "a\nb\n"


def test_what_is_safe_stays_so():
    """Text passes more than one place that sanitizes."""
    once = sanitize("".join(map(chr, range(0x3000))))
    assert sanitize(once) == once
