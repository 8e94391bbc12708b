"""One completion on a real engine with a tiny model of random weights.

Such a model writes nonsense for ever, so whatever ends or shapes its answer is our doing.
"""

import json

import pytest

from qwenterm.core.errors import ContextFullError
from qwenterm.engine.checkpoints import CheckpointStore, ParkingStore
from qwenterm.engine.llama import Llama, LoadParameters
from qwenterm.engine.sampling import GrammarCache
from qwenterm.engine.schedule import Scheduler
from qwenterm.engine.slots import Slots
from qwenterm.host.completion import Completion, Workbench
from qwenterm.host.deltas import Call, Finished, Text, Thinking
from qwenterm.host.requests import CompletionRequest, InvalidRequestError
from qwenterm.host.token_log import TokenLog
from tests.stubs.tiny_hybrid import write_tiny_hybrid

QUESTION = [{"role": "user", "content": "Go on."}]


def tool(name, *keys):
    properties = {key: {"type": "string"} for key in keys}
    schema = {"type": "object", "properties": properties, "required": list(keys)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def allowed(mode="required", **values):
    tools = [
        {"type": "function", "function": {"name": name, **({"values": limits} if limits else {})}}
        for name, limits in values.items()
    ]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.fixture(scope="module")
def llama(tmp_path_factory, vocab_qwen35, qwen35_template):
    path = tmp_path_factory.mktemp("model") / "tiny-hybrid.gguf"
    write_tiny_hybrid(path, vocab_qwen35, qwen35_template)
    loaded = Llama(path, LoadParameters(n_ctx=1024, batch=128), lambda _fraction: True)
    yield loaded
    loaded.close()


@pytest.fixture
def complete(llama):
    """Return a function that answers one request with all its deltas, ended by an error if any."""
    llama.forget_all()
    slots = Slots(llama, CheckpointStore(64 << 20), ParkingStore(0))
    scheduler = Scheduler(slots)
    log, grammars = TokenLog(llama.vocabulary), GrammarCache(llama.vocabulary)
    bench = Workbench(slots, llama.chat_template, log, grammars, scheduler.pace)

    def complete(messages=QUESTION, **body):
        body = {"messages": messages, "seed": 1, "temperature": 1.0, **body}
        got = []
        request = CompletionRequest.model_validate(body)
        scheduler.submit(Completion(bench, request, got.append, lambda: False).task(got.append))
        while scheduler.busy:
            scheduler.step()
        return got

    return complete


def of(kind, got):
    return [item for item in got if isinstance(item, kind)]


def joined(kind, got):
    return "".join(item.text for item in of(kind, got))


def test_thinking_that_has_used_its_tokens_gives_way_to_an_answer(complete, llama):
    """Left alone, a small model thinks until its answer is cut, and the user reads nothing."""
    got = complete(thinking_token_budget=20, max_tokens=80, ignore_eos=True)
    thought = joined(Thinking, got)
    own = thought.partition("I have thought about this long enough")
    assert own[1], "the thinking is closed with a sentence that the model can go on from"
    assert 0 < len(llama.vocabulary.tokenize(own[0])) <= 30
    assert "</think>" not in thought
    assert joined(Text, got)
    assert of(Finished, got)[0].reason == "length"


def test_a_short_answer_keeps_a_quarter_for_what_is_not_thinking(complete):
    got = complete(max_tokens=40, ignore_eos=True)
    assert joined(Thinking, got)
    assert joined(Text, got)


@pytest.mark.parametrize("body", [{"reasoning_effort": "none"}, {"thinking_token_budget": 0}])
def test_thinking_can_be_off(complete, body):
    got = complete(max_tokens=20, ignore_eos=True, **body)
    assert not of(Thinking, got)
    assert joined(Text, got)


def test_a_demanded_call_waits_for_the_end_of_the_thinking(complete):
    """A call inside the thoughts is a thought: nobody would run it."""
    names = {"type": "string", "enum": ["a", "b"]}
    schema = {"type": "object", "properties": {"name": names}, "required": ["name"]}
    offered = [{"type": "function", "function": {"name": "pick", "parameters": schema}}]
    got = complete(tools=offered, tool_choice="required", thinking_token_budget=10, max_tokens=200)
    assert of(Thinking, got)
    (call,) = of(Call, got)
    assert call.name == "pick"
    assert json.loads(call.arguments)["name"] in ("a", "b")


@pytest.mark.parametrize("count", [3, 200])
def test_an_argument_is_one_of_the_values_that_exist(complete, count):
    """A small model reads files that it made up, and each costs the user a step."""
    files = [f"src/deep/module_{number}.py" for number in range(count)]
    choice = allowed(read={"path": files})
    for seed in range(5):
        got = complete(
            tools=[tool("read", "path"), tool("write", "path", "text")],
            tool_choice=choice,
            reasoning_effort="none",
            seed=seed,
        )
        (call,) = of(Call, got)
        assert call.name == "read"
        assert json.loads(call.arguments)["path"] in files


def test_values_for_what_is_no_argument_are_refused(complete):
    offered = [tool("read", "path")]
    for limits in ({"file": ["a"]}, {"path": []}):
        with pytest.raises(InvalidRequestError, match="read has no argument"):
            complete(tools=offered, tool_choice=allowed(read=limits))


def test_a_tool_that_a_mode_forbids_is_never_called(complete):
    """Where nothing may be written, the writing tools are not in the grammar at all."""
    pick = {"type": "string", "enum": ["x"]}
    schema = {"type": "object", "properties": {"path": pick}, "required": ["path"]}
    offered = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name in ("write", "read", "edit")
    ]
    for seed in range(8):
        got = complete(
            tools=offered, tool_choice=allowed(read={}), reasoning_effort="none", seed=seed
        )
        assert [call.name for call in of(Call, got)] == ["read"]


def test_an_answer_that_runs_into_the_end_of_the_context_is_an_error_of_its_own_kind(complete):
    """Cut in silence, the user would take half an answer for a whole one."""
    got = complete(max_tokens=5000, ignore_eos=True, reasoning_effort="none")
    assert isinstance(got[-1], ContextFullError)
    assert joined(Text, got)
    # Whoever comes next is not affected.
    assert of(Finished, complete(max_tokens=5, ignore_eos=True))


def test_a_prediction_changes_nothing_but_the_speed(complete):
    plain = complete(max_tokens=60, temperature=0, ignore_eos=True, reasoning_effort="none")
    text = joined(Text, plain)
    content = {"type": "content", "content": text}
    body = {"max_tokens": 60, "temperature": 0, "ignore_eos": True, "reasoning_effort": "none"}
    assert joined(Text, complete(prediction=content, **body)) == text
