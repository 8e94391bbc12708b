"""The endpoint of the settings: which key, which model, which way."""

import pytest

from qwenterm.config import EndpointSettings
from qwenterm.connection import Endpoint
from qwenterm.core.errors import (
    UnavailableError,
    UsageError,
)
from tests.client.asking import HELLO, OBJECT, answer, ask, free_port, text
from tests.stubs.chat_server import (
    ChatServer,
    Reply,
    refused,
    said,
)


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
