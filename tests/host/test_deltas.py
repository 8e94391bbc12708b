"""Text that comes quickly is joined, so that the other side is not woken for each token."""

from qwenterm.host.deltas import Call, Joined, Text, Thinking


def test_nothing_is_lost_or_moved_by_joining():
    got = []
    joined = Joined(got.append)
    items = [Thinking("a"), Thinking("b"), Thinking("c"), Text("d"), Text("e"), Text("f")]
    call = Call("1", "read", "{}")
    for item in [*items, call, Text("g"), None]:
        joined.put(item)
    assert got[-1] is None
    assert got.index(call) == len(got) - 3
    kinds = {kind: "".join(i.text for i in got if isinstance(i, kind)) for kind in (Thinking, Text)}
    assert kinds == {Thinking: "abc", Text: "defg"}
    assert len(got) < 8


def test_the_first_word_is_not_held_back():
    """The time to the first word is what people feel."""
    got = []
    Joined(got.append).put(Text("Hi"))
    assert got == [Text("Hi")]
