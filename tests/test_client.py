"""The client against a scripted server: without these, calls get lost and errors unread."""

import asyncio
import json
import socket
from contextlib import aclosing

import pytest

from qwenterm import answer_stream
from qwenterm.client import (
    ChatCall,
    ChatClient,
    ChatFinish,
    ChatProgress,
    ChatRequest,
    ChatText,
    ChatThinking,
    ChatUsage,
)
from qwenterm.config import EndpointSettings
from qwenterm.connection import Endpoint
from qwenterm.core.errors import (
    ConnectionLostError,
    ContextFullError,
    QwentermError,
    UnavailableError,
    UsageError,
)
from qwenterm.core.types import Message, ToolCall
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
    refused,
    said,
    usage,
)

HELLO = ChatRequest([Message("user", "hello")])


async def ask(server, request=HELLO, *, timeout=5.0, **options):
    client = ChatClient(server.url, timeout=timeout, **options)
    try:
        return [event async for event in client.stream(request)]
    finally:
        await client.aclose()


async def answer(*replies, **options):
    """Return the events of the first reply's answer."""
    with ChatServer(*replies) as server:
        return await ask(server, **options)


def pieces(*chunks, **options):
    return Reply(list(chunks), **options)


def calls(events):
    return [(e.name, json.loads(e.arguments)) for e in events if isinstance(e, ChatCall)]


def text(events):
    return "".join(event.text for event in events if isinstance(event, ChatText))


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


PAGE = (
    "<!doctype html><html><head><title>404\n Not  Found</title><style>p { x: y }</style></head>"
    "<body><h1>Not Found</h1></body></html>"
)
OBJECT = {"error": {"message": "bad\nthing &lt;here", "type": "some_error", "code": 7}}


@pytest.mark.parametrize("body", [PAGE, OBJECT, "", {"detail": "x"}, {"message": "x"}])
@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, UnavailableError, "refuses the key"),
        (404, UnavailableError, "no such path or model"),
        (500, QwentermError, "reports an error (HTTP 500)"),
        (503, UnavailableError, "cannot answer now"),
    ],
)
async def test_a_refusal_is_one_clear_line(status, kind, words, body):
    """A page of markup or a printed dict tells a person nothing."""
    with ChatServer(refused(status, body)) as server, pytest.raises(kind) as caught:
        await ask(server)
    message = str(caught.value)
    assert server.url in message and words in message and str(status) in message
    assert "\n" not in message and "<" not in message.replace("&lt;", "") and "{" not in message
    if body is PAGE:
        assert "404 Not Found" in message
    if body is OBJECT:
        assert "bad thing" in message and "some_error" not in message


async def test_a_redirect_names_the_address_to_write_instead():
    reply = Reply([], 308, headers="Location: https://example.invalid/v1/\r\n")
    with pytest.raises(UnavailableError, match=r"sends elsewhere.*https://example\.invalid/v1/"):
        await answer(reply)


async def test_a_web_page_instead_of_a_model_names_the_setting():
    """The usual mistake: the address of the server's page, without /v1."""
    with pytest.raises(UnavailableError, match=r"web page.*endpoint\.base_url.*/v1"):
        await answer(Reply([b"<html>"], kind="text/html; charset=utf-8"))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "too long", "code": "context_length_exceeded"}),
        (400, {"message": "too long", "type": "context_length_exceeded"}),
        (400, {"message": "This model's maximum context length is 4096 tokens.", "code": 400}),
        (400, {"message": "the request exceeds the available context size", "type": "x"}),
        (400, {"message": "longer than it takes", "type": "exceed_context_size_error"}),
    ],
)
async def test_a_full_context_is_told_apart(status, error):
    """The agent makes room and tries again; any other error ends the turn."""
    with pytest.raises(ContextFullError, match=error["message"]):
        await answer(refused(status, {"error": error}))


async def test_vllm_s_bare_error_objects_are_understood():
    body = {"object": "error", "message": "maximum context length is 9", "code": 400}
    with pytest.raises(ContextFullError, match="maximum context length is 9"):
        await answer(refused(400, body))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "no room", "type": "context_length_exceeded"}, ContextFullError),
        ({"message": "no model", "type": "unavailable"}, UnavailableError),
        ({"message": "it broke", "type": "server_error"}, QwentermError),
        ("it broke", QwentermError),
    ],
)
async def test_an_error_in_the_middle_of_a_stream_is_raised(error, kind):
    message = error if isinstance(error, str) else error["message"]
    with pytest.raises(kind, match=message):
        await answer(pieces(delta(content="so "), event({"error": error})))


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


async def test_nobody_there_is_unavailable_and_says_where():
    client = ChatClient(f"http://127.0.0.1:{free_port()}/v1")
    for request in (client.model_names(), anext(client.stream(HELLO))):
        with pytest.raises(UnavailableError, match=r"nothing answers at http://127") as caught:
            await request
        # Trying again at once what was never there only repeats the message.
        assert not isinstance(caught.value, ConnectionLostError)


async def test_the_own_host_gone_is_a_lost_connection(tmp_path):
    """It is started again and asked again, so it must be told apart from a wrong address."""
    client = ChatClient("http://host/v1", socket=tmp_path / "none", extensions=True)
    with pytest.raises(ConnectionLostError, match="gone"):
        await anext(client.stream(HELLO))


async def test_a_server_that_never_answers_ends_with_the_timeout():
    with ChatServer(pieces(HANG)) as server:
        with pytest.raises(UnavailableError, match=r"in time.*endpoint\.timeout_seconds"):
            await ask(server, timeout=0.2)
        assert await asyncio.to_thread(server.hung_up.wait, 5)


@pytest.mark.parametrize("garbage", [b"data: {nonsense\n\n", b"data: \xff\xfe\n\n"])
async def test_a_broken_line_is_a_lost_connection(garbage):
    with pytest.raises(ConnectionLostError, match="broken line"):
        await answer(pieces(garbage))


@pytest.mark.parametrize(
    "value",
    [
        5,
        [],
        {"choices": "abc"},
        {"choices": [7]},
        {"choices": [{"delta": "text"}]},
        {"choices": [{"delta": {"tool_calls": [None]}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": "read"}]}}]},
        {"usage": 5},
        {"usage": {"prompt_tokens": "many"}},
        {"prompt_progress": [1]},
    ],
)
async def test_nonsense_is_an_error_in_words(value):
    """Whatever a server sends, nobody gets to see a stack of our functions."""
    with pytest.raises(QwentermError, match="the server sent"):
        await answer(pieces(event(value)))


async def test_comments_and_unknown_fields_are_passed_over():
    """Keep-alive lines of proxies, event names of other dialects."""
    parts = [b": keep-alive\n\n", b"event: message\nid: 4\nretry: 10\n\n", b"\n\n\r\n"]
    assert text(await answer(pieces(*parts, *said("yes").pieces))) == "yes"


async def test_an_endless_line_is_given_up(monkeypatch):
    monkeypatch.setattr(answer_stream, "MAX_EVENT_CHARS", 10_000)
    with pytest.raises(QwentermError, match="endless line"):
        await answer(pieces(*[b"data: " + b"x" * 1000] * 12, HANG))


async def test_halves_of_characters_neither_arrive_nor_are_sent():
    """JSON can carry them; a terminal, a file and the next request cannot."""
    half = b'data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n'
    with ChatServer(pieces(half, *end())) as server:
        events = await ask(server, ChatRequest([Message("user", "name \udcff")]))
    assert text(events) == "a\ufffd"
    assert server.chats[0]["messages"][0]["content"] == "name ?"


async def test_a_request_says_all_that_was_asked_for():
    tool = {"type": "function", "function": {"name": "read"}}
    history = [
        Message("user", "look"),
        Message("assistant", "", "hm", (ToolCall("x", "read", {"path": "ä"}),)),
        Message("tool", "text", tool_call_id="x"),
    ]
    request = ChatRequest(
        history,
        tools=[tool],
        tool_choice="required",
        temperature=0.5,
        top_p=0.8,
        seed=4,
        max_tokens=99,
        thinking=False,
        schema={"type": "object"},
        continue_final=True,
    )
    with ChatServer(said("yes")) as server:
        await ask(server, request, model="mine")
    body = server.chats[0]
    assert body["model"] == "mine" and body["stream"]
    assert (body["temperature"], body["top_p"], body["seed"]) == (0.5, 0.8, 4)
    assert (body["tools"], body["tool_choice"], body["max_tokens"]) == ([tool], "required", 99)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["continue_final_message"] and not body["add_generation_prompt"]
    assert body["messages"][1]["reasoning_content"] == "hm"
    call = body["messages"][1]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"path": "ä"}
    assert body["messages"][2] == {"role": "tool", "content": "text", "tool_call_id": "x"}
    # A field that only the own host knows makes strict servers refuse the request.
    assert "return_progress" not in body


def endpoint(server, **settings):
    return Endpoint(EndpointSettings(base_url=server.url, timeout_seconds=5, **settings))


async def use(server, **settings):
    model = endpoint(server, **settings)
    await model.prepare(lambda _fraction: None)
    return [event async for event in model.stream(HELLO)]


async def test_the_key_of_the_environment_is_sent_to_the_endpoint(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "s3cret\n")
    with ChatServer(said("yes")) as server:
        await use(server, api_key_env="SOME_KEY")
    assert [r.headers["authorization"] for r in server.requests] == ["Bearer s3cret"] * 2


async def test_without_a_key_none_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of another program")
    with ChatServer(said("yes")) as server:
        await use(server)
    assert all("authorization" not in request.headers for request in server.requests)


async def test_a_key_that_is_not_set_or_not_a_key_is_named_and_not_shown(monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with ChatServer() as server:
        with pytest.raises(UsageError, match="SOME_KEY, which is not set"):
            endpoint(server, api_key_env="SOME_KEY")
        monkeypatch.setenv("SOME_KEY", "s3\ncret")
        with pytest.raises(UsageError) as caught:
            endpoint(server, api_key_env="SOME_KEY")
    assert "cret" not in str(caught.value)


async def test_the_first_model_of_the_endpoint_answers_unless_one_is_named():
    with ChatServer(said("yes"), said("yes")) as server:
        await use(server)
        await use(server, model="other")
    assert [body["model"] for body in server.chats] == ["scripted", "other"]
    assert [r.path for r in server.requests].count("/v1/models") == 1


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (refused(404, "<h1>no</h1>"), r"does not list its models.*`endpoint\.model`"),
        (Reply([b"<html>"], kind="text/html"), r"does not list its models.*/v1"),
        (Reply([b'{"data": [5]}'], kind="application/json"), "does not list its models"),
        (refused(401, OBJECT), "refuses the key"),
    ],
)
async def test_an_endpoint_without_a_list_of_models_says_what_to_set(reply, words):
    with ChatServer(models=reply) as server, pytest.raises(UnavailableError, match=words):
        await endpoint(server).prepare(lambda _fraction: None)


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://h:99999/v1", "http://h:x"]
)
def test_an_address_that_is_none_is_refused_by_name(url):
    with pytest.raises(UsageError, match=r"endpoint\.base_url"):
        Endpoint(EndpointSettings(base_url=url))


async def test_a_proxy_is_never_asked_for_a_server_on_this_machine(monkeypatch):
    """Prompts meant for this machine would go to the proxy's owner."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert text(await answer(said("yes"))) == "yes"


async def test_a_unix_socket_works_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s"
    with ChatServer(said("yes"), socket=path) as server:
        events = await ask(server, socket=path, extensions=True)
    assert text(events) == "yes"
    assert server.chats[0]["return_progress"] is True
