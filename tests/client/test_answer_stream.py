"""Streamed answers, byte by byte: without these, half an answer passes for a whole one."""

import asyncio
import json
from contextlib import aclosing

import pytest

from qwenterm.client import (
    ChatCall,
    ChatClient,
    ChatFinish,
    ChatProgress,
    ChatText,
    ChatThinking,
    ChatUsage,
)
from qwenterm.core.errors import (
    ConnectionLostError,
)
from tests.client.asking import HELLO, answer, calls, pieces, text
from tests.stubs.chat_server import (
    DONE,
    DROP,
    HANG,
    ChatServer,
    Reply,
    called,
    delta,
    end,
    event,
    fragment,
    said,
    usage,
)


async def test_text_comes_in_the_pieces_in_which_it_was_sent():
    events = await answer(said("Hel", "lo ", "wörld ✓"))
    assert events == [
        ChatText("Hel"),
        ChatText("lo "),
        ChatText("wörld ✓"),
        ChatUsage(12, 8, 3, 0, 0),
        ChatFinish("stop"),
    ]


async def test_text_is_told_while_the_rest_is_still_being_written():
    """Otherwise a slow model looks dead until its last word."""
    with ChatServer(pieces(delta(content="first"), HANG)) as server:
        async with aclosing(ChatClient(server.url).stream(HELLO)) as stream:
            first = await asyncio.wait_for(anext(stream), 5)
    assert first == ChatText("first")


async def test_closing_hangs_up_so_that_the_server_stops_working():
    with ChatServer(pieces(delta(content="first"), HANG)) as server:
        stream = ChatClient(server.url).stream(HELLO)
        await anext(stream)
        await stream.aclose()
        assert await asyncio.to_thread(server.hung_up.wait, 5)


async def test_events_cut_anywhere_and_with_any_line_end_are_the_same():
    """TCP knows no lines: a cut inside a character or a line end must not show."""
    whole = b"".join(said("wörld ✓", "\r\n\tend").pieces)
    for data in (whole, whole.replace(b"\n", b"\r\n")):
        for size in (1, 3, 7):
            cut = [data[start : start + size] for start in range(0, len(data), size)]
            events = await answer(pieces(*cut))
            assert text(events) == "wörld ✓\r\n\tend"
            assert events[-1] == ChatFinish("stop")


async def test_a_call_in_fragments_arrives_whole():
    """The way of vLLM, SGLang, llama-server and OpenAI: name first, arguments in pieces."""
    events = await answer(called("read", "abc", path="a b.txt", start=3))
    assert events[0] == ChatCall("abc", "read", '{"path": "a b.txt", "start": 3}')
    assert events[-1] == ChatFinish("tool_calls")


async def test_several_calls_in_fragments_are_told_apart_by_their_index():
    events = await answer(
        pieces(
            fragment(0, id="x", function={"name": "read", "arguments": ""}),
            fragment(0, function={"arguments": '{"path": '}),
            fragment(1, id="y", function={"name": "list", "arguments": ""}),
            fragment(0, function={"arguments": '"a"}'}),
            fragment(1, function={"arguments": '{"path":'}),
            fragment(1, function={"arguments": '"b"}'}),
            *end("tool_calls"),
        )
    )
    assert calls(events) == [("read", {"path": "a"}), ("list", {"path": "b"})]


async def test_calls_that_all_have_the_index_0_are_told_apart_by_their_ids():
    """Some servers number each call 0; merged, both would be lost."""
    parts = [
        fragment(0, id=key, function={"name": "read", "arguments": json.dumps({"path": key})})
        for key in ("a", "b")
    ]
    assert calls(await answer(pieces(*parts, *end("tool_calls")))) == [
        ("read", {"path": "a"}),
        ("read", {"path": "b"}),
    ]


async def test_calls_without_an_index_are_told_apart_by_their_names():
    parts = [
        fragment(None, function={"name": "read", "arguments": '{"path":'}),
        fragment(None, function={"arguments": ' "a"}'}),
        fragment(None, function={"name": "list", "arguments": "{}"}),
    ]
    events = await answer(pieces(*parts, *end("tool_calls")))
    assert calls(events) == [("read", {"path": "a"}), ("list", {})]
    identifiers = [e.id for e in events if isinstance(e, ChatCall)]
    assert len(set(identifiers)) == 2 and all(identifiers)


@pytest.mark.parametrize("names", [("shell", "shell", "shell"), ("she", "ll", "")])
async def test_a_name_that_is_repeated_or_split_stays_one_name(names):
    parts = [
        fragment(0, id="x", function={"name": name, "arguments": piece})
        for name, piece in zip(names, ('{"comm', 'and": "l', 's"}'), strict=True)
    ]
    events = await answer(pieces(*parts, *end("tool_calls")))
    assert calls(events) == [("shell", {"command": "ls"})]


@pytest.mark.parametrize("arguments", ['{"path": "a"}', {"path": "a"}])
async def test_a_call_in_one_chunk_arrives_whole(arguments):
    """Ollama and older servers do not cut calls; some forget to write arguments as text."""
    function = {"name": "read", "arguments": arguments}
    call = {"index": 0, "id": "x", "type": "function", "function": function}
    chunk = delta("tool_calls", role="assistant", tool_calls=[call])
    assert calls(await answer(pieces(chunk, DONE))) == [("read", {"path": "a"})]


async def test_a_server_that_does_not_stream_is_understood():
    function = {"name": "read", "arguments": '{"path": "a"}'}
    message = {"content": "so", "tool_calls": [{"id": "x", "function": function}]}
    body = {
        "choices": [{"message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    events = await answer(Reply([json.dumps(body).encode()], kind="application/json"))
    assert text(events) == "so"
    assert calls(events) == [("read", {"path": "a"})]
    assert events[-2:] == [ChatUsage(5, 0, 2, 0, 0), ChatFinish("tool_calls")]


async def test_a_call_without_arguments_has_an_empty_object():
    events = await answer(pieces(fragment(0, function={"name": "list"}), *end("tool_calls")))
    assert calls(events) == [("list", {})]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
async def test_reasoning_is_kept_apart_from_the_answer(key):
    events = await answer(pieces(delta(**{key: "hm, "}), delta(**{key: "so"}), *said("yes").pieces))
    assert [e.text for e in events if isinstance(e, ChatThinking)] == ["hm, ", "so"]
    assert text(events) == "yes"


async def test_usage_in_every_chunk_counts_once():
    """Adding up counts that count up would show a multiple of the truth."""
    counting = [event({"choices": [], "usage": {"completion_tokens": n}}) for n in (1, 2)]
    events = await answer(pieces(delta(content="a"), *counting, delta("stop"), usage(), DONE))
    assert [e for e in events if isinstance(e, ChatUsage)] == [ChatUsage(12, 8, 3, 0, 0)]


async def test_progress_and_timings_of_the_own_host_are_told():
    progress = event({"choices": [], "prompt_progress": {"processed": 5, "total": 9, "cache": 2}})
    timed = event(
        {
            "choices": [],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1},
            "timings": {"prompt_ms": 250, "predicted_ms": 1500},
        }
    )
    events = await answer(pieces(progress, delta("stop", content="x"), timed, DONE))
    assert events[0] == ChatProgress(5, 9, 2)
    assert ChatUsage(9, 0, 1, 0.25, 1.5) in events


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(
    "before",
    [
        [],
        [delta(content="half an ans")],
        [fragment(0, id="x", function={"name": "read", "arguments": '{"pa'})],
        [delta(content="half"), b'data: {"choices": [{"del'],
    ],
    ids=["nothing", "text", "call", "line"],
)
async def test_a_connection_that_breaks_is_lost_and_no_answer(before, chunked):
    """Half an answer taken for a whole one is wrong without anybody noticing."""
    with pytest.raises(ConnectionLostError):
        await answer(pieces(*before, DROP, chunked=chunked))


async def test_a_connection_that_breaks_after_the_end_loses_nothing():
    events = await answer(pieces(delta("stop", content="all"), DROP))
    assert (text(events), events[-1]) == ("all", ChatFinish("stop"))


async def test_an_end_without_the_mark_or_without_a_reason_is_an_end():
    """Servers leave out one or the other."""
    assert text(await answer(pieces(delta("stop", content="all")))) == "all"
    parts = [fragment(0, id="x", function={"name": "read", "arguments": "{}"}), DONE]
    events = await answer(pieces(*parts))
    assert calls(events) == [("read", {})]
    assert events[-1] == ChatFinish("tool_calls")
