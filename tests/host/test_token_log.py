"""The ids of a turn begin those of the next one, whatever the template does to old messages.

Otherwise every turn evaluates again what the model had in its memory a moment before.
"""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwenterm.chat.template import render
from qwenterm.host.requests import CompletionRequest
from qwenterm.host.token_log import TokenLog

QWEN25 = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}"
    '{%- for call in message.tool_calls or [] %}{{- \'\\n<tool_call>\\n{"name": "\' }}'
    '{{- call.function.name }}{{- \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}{{- '<|im_start|>assistant\\n' }}"
)
PIECES = ["a", "é", "\n", " ", '"', "{", "word ", "<|im_end|>", "</think>", "日"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
ANSWERS = st.tuples(TEXTS, st.none() | st.tuples(st.sampled_from(["read", "x"]), TEXTS), TEXTS)
TURNS = st.lists(st.tuples(TEXTS, ANSWERS), min_size=2, max_size=5)


@pytest.fixture(scope="module", params=["tagged", "json"])
def side(request, vocab_qwen35, vocab_qwen2, qwen35_template):
    """A vocabulary with its template: thinking kept, and no thinking."""
    from qwenterm.engine.native import lib
    from qwenterm.engine.vocabulary import Vocabulary

    path, template = {
        "tagged": (vocab_qwen35, qwen35_template),
        "json": (vocab_qwen2, QWEN25),
    }[request.param]
    lib.llama_backend_init()
    parameters = lib.llama_model_default_params()
    parameters.vocab_only = True
    model = lib.llama_model_load_from_file(str(path).encode(), parameters)
    yield Vocabulary(lib.llama_model_get_vocab(model)), template
    lib.llama_model_free(model)


def encode(log, template, messages, **more):
    request = CompletionRequest.model_validate({"messages": messages, **more})
    prompt = render(template, [message.for_template() for message in request.messages])
    return request, log.encode(request, prompt)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(turns=TURNS)
def test_the_ids_of_a_turn_begin_those_of_the_next(side, turns):
    vocabulary, template = side
    log = TokenLog(vocabulary)
    messages = [{"role": "system", "content": "You help."}]
    before: list[int] = []
    for number, (question, (content, call, thought)) in enumerate(turns):
        messages.append({"role": "user", "content": question + "?"})
        request, encoded = encode(log, template, messages)
        assert encoded.tokens[: len(before)] == before
        # What a model might have written: thoughts, odd white space, its own spelling of a call.
        written = f"{thought}\n</think>\n\n{content}  <tool_call> odd {call}"
        tokens = [*encoded.tokens, *vocabulary.tokenize(written, [(0, len(written))])]
        calls = [(call[0], json.dumps({"path": call[1]}))] if call else []
        log.remember(request, tokens, content, calls)
        before = tokens
        answer = {"role": "assistant", "content": content}
        if calls:
            function = {"name": calls[0][0], "arguments": calls[0][1]}
            answer["tool_calls"] = [{"id": "1", "type": "function", "function": function}]
        messages.append(answer)
        if calls:
            messages.append({"role": "tool", "content": f"result {number}", "tool_call_id": "1"})
        if not content.strip() and not calls:
            return  # nothing of this message is in the prompt that could be found again


def test_a_changed_message_is_not_taken_for_the_old_one(side):
    vocabulary, template = side
    log = TokenLog(vocabulary)
    messages = [{"role": "user", "content": "one"}]
    request, encoded = encode(log, template, messages)
    log.remember(request, [*encoded.tokens, 5, 6, 7], "answer", [])
    messages += [{"role": "assistant", "content": "answer"}, {"role": "user", "content": "two"}]
    assert encode(log, template, messages)[1].spliced == len(encoded.tokens) + 4
    messages[0] = {"role": "user", "content": "another"}
    assert encode(log, template, messages)[1].spliced == 0


def test_the_log_stays_within_its_size(side):
    vocabulary, template = side
    log = TokenLog(vocabulary, most=3000)
    for number in range(50):
        messages = [{"role": "user", "content": f"question {number}"}]
        request, encoded = encode(log, template, messages)
        log.remember(request, [*encoded.tokens, *range(500)], "answer", [])
    continued = [*messages, {"role": "assistant", "content": "answer"}, messages[0]]
    assert encode(log, template, continued)[1].spliced > 500
    first = [{"role": "user", "content": "question 0"}, *continued[1:]]
    assert encode(log, template, first)[1].spliced == 0


def test_marks_are_where_messages_end_and_the_system_prompt_is_stable(side):
    vocabulary, template = side
    messages = [
        {"role": "system", "content": "You <|im_end|> help."},
        {"role": "user", "content": "one"},
    ]
    _, encoded = encode(TokenLog(vocabulary), template, messages)
    end = vocabulary.end_of_turn
    assert encoded.stable == encoded.tokens.index(end) + 1
    assert encoded.stable in encoded.marks
    assert all(encoded.tokens[mark - 1] == end for mark in encoded.marks)


def test_dropped_thinking_is_not_put_back_from_the_log(side):
    """Dropped to make room, it would otherwise fill the context again at once."""
    vocabulary, template = side
    log = TokenLog(vocabulary)
    messages = [{"role": "user", "content": "How?"}]
    request, encoded = encode(log, template, messages)
    thought = vocabulary.tokenize("a long thought\n</think>\n\n", [])
    log.remember(request, [*encoded.tokens, *thought, *vocabulary.tokenize("So.")], "So.", [])
    messages += [{"role": "assistant", "content": "So."}, {"role": "user", "content": "And?"}]
    _, kept = encode(log, template, messages)
    assert set(thought) <= set(kept.tokens)
    request, dropped = encode(log, template, messages, drop_thinking_before=3)
    assert dropped.spliced == 0
    assert len(dropped.tokens) < len(kept.tokens)
    # From there on the ids are kept again.
    tokens = [*dropped.tokens, *thought, *vocabulary.tokenize("Thus.")]
    log.remember(request, tokens, "Thus.", [])
    messages += [{"role": "assistant", "content": "Thus."}, {"role": "user", "content": "More?"}]
    _, later = encode(log, template, messages, drop_thinking_before=3)
    assert later.tokens[: len(tokens)] == tokens
