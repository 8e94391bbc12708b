"""Turns of a small model: unguided, it describes what should be done and does nothing."""

from qwenterm.client import ChatClient, ChatText
from qwenterm.core import events
from qwenterm.core.errors import ConnectionLostError
from qwenterm.core.types import PermissionMode
from qwenterm.host.requests import CompletionRequest
from tests.stubs.scripted_model import call, text
from tests.stubs.turns import consistent, of, turn


async def test_an_answer_that_tells_the_user_to_run_it_is_turned_into_a_call(build):
    """A small model does so with half of the questions; it is stopped in the middle of it."""
    advice = text("You can ", "use the list tool ", "in many ways")
    runtime = build(advice, call("list"), text("There is one file."), guidance="on")
    found = await turn(runtime, "anything here?")
    assert [event.text for event in of(events.TextDelta, found)][:2] == [
        "You can ",
        "use the list tool ",
    ]
    assert runtime.model.requests[1].tool_choice == "required"
    assert found[-1].answer == "There is one file."


async def test_a_large_model_may_advise(build):
    """Who asks how to do something wants to be told, and a large model knows the difference."""
    runtime = build(text("You can use the following command:\n```sh\nls\n```"))
    assert (await turn(runtime, "list it"))[-1].reason == "answered"
    assert len(runtime.model.requests) == 1


async def test_a_question_leaves_the_changing_tools_out(build):
    """Asked who made the last commit, a small model rewrote the README."""
    runtime = build(call("git", action="log"), text("Ann."), guidance="on")
    await turn(runtime, "Who made the last commit?")
    first = runtime.model.requests[0]
    assert first.tool_choice == "required"
    assert "read" in first.allowed_tools
    assert not {"write", "edit"} & set(first.allowed_tools)
    assert runtime.history[-2].content.count("Who made the last commit?") == 1


async def test_an_ordered_change_is_demanded_until_it_is_made(build, workspace):
    """A small model describes what the user should change; and it guesses what is in the file."""
    runtime = build(
        text("Change the file."),
        call("edit", "call_2", path="one.txt", old="one", new="two"),
        text("Done."),
        guidance="on",
    )
    found = await turn(runtime, "Replace one by two in one.txt.")
    assert of(events.ToolFinished, found)[0].text == "1\tone"
    assert found[-1].answer == "Done."
    assert (workspace / "one.txt").read_text() == "two\n"
    assert "write" not in runtime.model.requests[0].allowed_tools
    choices = [request.tool_choice for request in runtime.model.requests]
    assert choices == ["required", "required", "auto"]
    assert consistent(runtime.history)


async def test_a_retry_after_a_lost_host_is_a_request_that_the_host_takes(build):
    """Narrowed tools and no tools at once was refused, and the turn was lost with the host."""
    lost = [ChatText("A mutex "), ConnectionLostError("the host went away")]
    runtime = build(lost, text("is a lock."), guidance="on")
    found = await turn(runtime, "What is a mutex?")
    assert found[-1].answer == "A mutex is a lock."
    retry = runtime.model.requests[1]
    client = ChatClient("http://127.0.0.1:9/v1", extensions=True)
    body = client._body(retry)
    await client.aclose()
    assert not CompletionRequest.model_validate(body).must_call
    assert list(CompletionRequest.model_validate(body).callable_tools()) == []


async def test_a_small_model_reads_only_what_is_there(build, workspace):
    """It reads `src/main.py` because there mostly is one, and loses a step for each guess."""
    (workspace / "deep").mkdir()
    (workspace / "deep" / "two.txt").write_text("two\n")
    (workspace / ".git").mkdir(exist_ok=True)
    (workspace / ".git" / "config").write_text("")
    runtime = build(call("read", path="deep/two.txt"), text("It is two."), guidance="on")
    await turn(runtime, "What is in the file two?")
    values = runtime.model.requests[0].values
    assert {"deep/two.txt", "one.txt"} <= set(values["read"]["path"])
    assert not any(name.startswith(".git/") for name in values["read"]["path"])
    assert "write" not in values


async def test_a_path_elsewhere_is_left_as_it_is_meant(build):
    """The policy decides about a file outside; the grammar must not turn it into another one."""
    runtime = build(text("No."), text("No."), guidance="on")
    await turn(runtime, "What is in /etc/hostname?")
    assert not runtime.model.requests[0].values


async def test_planning_leaves_the_changing_tools_out_for_every_model(build):
    """What the mode refuses anyway costs a step, and a reader's trust in the plan."""
    runtime = build(text("A plan."), mode=PermissionMode.PLAN)
    await turn(runtime, "Rename everything.")
    allowed = runtime.model.requests[0].allowed_tools
    assert "read" in allowed
    assert not {"write", "edit"} & set(allowed)
