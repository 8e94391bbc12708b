"""Asking a scripted server through the real client."""

import json
import socket

from qwenterm.client import (
    ChatCall,
    ChatClient,
    ChatRequest,
    ChatText,
)
from qwenterm.core.types import Message
from tests.stubs.chat_server import (
    ChatServer,
    Reply,
)

OBJECT = {"error": {"message": "bad\nthing &lt;here", "type": "some_error", "code": 7}}
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


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
