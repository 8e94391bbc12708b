"""Running turns of the loop and looking at what came of them."""

from qwenterm.agent.loop import run_turn


async def turn(runtime, prompt="do it", **options):
    return [event async for event in run_turn(runtime, prompt, **options)]


def of(kind, found):
    return [event for event in found if isinstance(event, kind)]


def consistent(history):
    """Every call has exactly one result right after it, or the template cannot go on."""
    open_calls = []
    for message in history:
        if message.role == "tool":
            assert message.tool_call_id == open_calls.pop(0)
        else:
            assert not open_calls
            open_calls = [call.id for call in message.tool_calls]
    assert not open_calls
    return True
