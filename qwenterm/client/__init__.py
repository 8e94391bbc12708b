"""The chat client: requests out, typed events of the answer in, failures as our errors."""

from qwenterm.client.answer_stream import (
    ChatCall,
    ChatEvent,
    ChatFinish,
    ChatProgress,
    ChatText,
    ChatThinking,
    ChatUsage,
)
from qwenterm.client.chat import ChatClient, ChatRequest, to_wire

__all__ = [
    "ChatCall",
    "ChatClient",
    "ChatEvent",
    "ChatFinish",
    "ChatProgress",
    "ChatRequest",
    "ChatText",
    "ChatThinking",
    "ChatUsage",
    "to_wire",
]
