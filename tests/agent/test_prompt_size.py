"""The prompt stays small: every token of it is paid for before the first answer in a new place."""

import contextlib

import llama_cpp
import pytest

from qwenterm.agent.guidance import EXAMPLE
from qwenterm.agent.prompt import system_message, tool_definitions
from qwenterm.chat.template import render
from tests.stubs.scripted_runtime import scripted_runtime

MOST_TOKENS = 1200


@contextlib.contextmanager
def vocabulary(path):
    """Yield the model of a file without its weights."""
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    assert model
    yield model
    llama_cpp.llama_model_free(model)


def count(model, text):
    raw = text.encode()
    buffer = (llama_cpp.llama_token * (len(raw) + 8))()
    vocab = llama_cpp.llama_model_get_vocab(model)
    return llama_cpp.llama_tokenize(vocab, raw, len(raw), buffer, len(buffer), False, True)


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3.5"])
def test_system_prompt_and_tools_stay_under_1200_tokens(
    workspace, family, vocab_qwen35, qwen35_template, tiny_model
):
    tools = tool_definitions(list(scripted_runtime(workspace).tools.values()))
    beginning = [system_message(), *EXAMPLE]
    messages = [{"role": message.role, "content": message.content} for message in beginning]
    messages.append({"role": "user", "content": "hello"})
    with vocabulary(tiny_model if family == "qwen2.5" else vocab_qwen35) as model:
        template = qwen35_template
        if family == "qwen2.5":
            template = llama_cpp.llama_model_chat_template(model, None).decode()
        tokens = count(model, render(template, messages, tools).text)
    print(family, tokens)
    assert 500 < tokens < MOST_TOKENS
