"""A full context is made room in, the cheapest loss first, and the turn goes on."""

from qwenterm.agent.compaction import compact
from qwenterm.core import events
from qwenterm.core.errors import ContextFullError
from qwenterm.core.types import Message, ToolCall
from tests.stubs.scripted_model import text
from tests.stubs.turns import of, turn

LONG = "a line of a long result\n" * 100


def conversation():
    reads = [ToolCall(f"call_{number}", "read", {"path": f"{number}.txt"}) for number in range(4)]
    messages = [Message("system", "You help."), Message("user", "Read all.")]
    for read in reads:
        messages.append(Message("assistant", "", f"I look at {read.id}.", (read,)))
        messages.append(Message("tool", LONG, tool_call_id=read.id))
    return [*messages, Message("assistant", "Done.", "That was all."), Message("user", "And now?")]


def test_thinking_goes_before_results(build):
    """What was thought is in the answers; a result may be needed again."""
    runtime = build()
    runtime.history += conversation()
    before, after = compact(runtime)
    assert after < before
    assert not any(message.thinking for message in runtime.history)
    assert sum(message.content == LONG for message in runtime.history) == 4
    assert runtime.thinking_from == len(runtime.history)
    compact(runtime)
    assert sum(message.content == LONG for message in runtime.history) == 2


def test_thinking_can_be_kept(build):
    runtime = build(drop_thinking=False)
    runtime.history += conversation()
    compact(runtime)
    assert sum(bool(message.thinking) for message in runtime.history) == 5
    assert sum(message.content == LONG for message in runtime.history) == 2
    assert runtime.thinking_from == 0


async def test_a_turn_goes_on_after_the_context_was_full_in_the_middle_of_its_answer(build):
    """The user sees one answer; what was written already is continued and not said twice."""
    half, rest = text("The first half "), text("and the second.")
    runtime = build([half[0], ContextFullError("full")], rest)
    runtime.history += conversation()
    found = await turn(runtime, "Tell me.")
    assert of(events.Compacted, found)
    assert found[-1].answer == "The first half and the second."
    again = runtime.model.requests[1]
    assert again.continue_final
    assert again.messages[-1].content == "The first half "
    assert again.drop_thinking_before > 0
