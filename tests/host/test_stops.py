"""Stop strings: if this fails, a stop string shows in the answer or text after it does."""

import pytest

from qwenterm.host.stops import StopFilter


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_text_ends_right_before_the_first_stop_string_however_it_is_cut(size):
    stops = StopFilter(["END", "\n\n"])
    text = "one E EN two\nEND three\n\n"
    shown = "".join(stops.feed(text[i : i + size]) for i in range(0, len(text), size))
    assert shown + stops.finish() == "one E EN two\n"
    assert stops.stopped


def test_what_only_looked_like_a_stop_string_is_shown_at_the_end():
    stops = StopFilter(["END"])
    assert stops.feed("the EN") + stops.finish() == "the EN"
    assert not stops.stopped


def test_without_stop_strings_nothing_is_held_back():
    assert StopFilter([]).feed("any") == "any"
