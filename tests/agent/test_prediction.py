"""The text that an edit will repeat is sent along, and only text that the model may know."""

from qwenterm.agent.prediction import predicted_text
from qwenterm.core.types import Message, ToolCall
from tests.stubs.scripted_model import call, text
from tests.stubs.turns import turn


async def test_the_file_that_was_read_is_predicted(build):
    """Without it, an edit of a long file takes the time of writing it anew."""
    runtime = build(call("read", path="one.txt"), text("One."))
    await turn(runtime, "read it")
    assert [request.prediction for request in runtime.model.requests] == ["", "one\n"]


def test_a_file_that_was_only_named_is_not(build, workspace):
    """The model asked for it, but the policy may have refused it."""
    runtime = build()
    asked = ToolCall("1", "read", {"path": "one.txt"})
    runtime.history.append(Message("assistant", "", "", (asked,)))
    assert predicted_text(runtime) == ""
