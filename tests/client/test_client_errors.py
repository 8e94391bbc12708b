"""What servers refuse and how they break: a person gets one line that says what to do."""

import asyncio
import json

import pytest

from qwenterm.client import (
    ChatClient,
    ChatRequest,
    answer_stream,
)
from qwenterm.core.errors import (
    ConnectionLostError,
    ContextFullError,
    QwentermError,
    UnavailableError,
)
from qwenterm.core.types import Message, ToolCall
from tests.client.asking import HELLO, OBJECT, answer, ask, free_port, pieces, text
from tests.stubs.chat_server import (
    HANG,
    ChatServer,
    Reply,
    delta,
    end,
    event,
    refused,
    said,
)

PAGE = (
    "<!doctype html><html><head><title>404\n Not  Found</title><style>p { x: y }</style></head>"
    "<body><h1>Not Found</h1></body></html>"
)


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
        thinking="off",
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
