"""The resident host as a real process with the real tiny model, over its real socket."""

import asyncio
import json
import os
import signal
import stat

import httpx
import pytest

from qwenterm.client import ChatClient, ChatRequest, ChatText
from qwenterm.core.errors import ContextFullError, UnavailableError
from qwenterm.core.types import Message
from qwenterm.host import lifecycle

SHELL = {
    "type": "function",
    "function": {
        "name": "shell",
        "description": "Run a shell command.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        },
    },
}
QUESTION = [{"role": "user", "content": "List the files of this folder."}]


def wanted(model, n_ctx=2048):
    return lifecycle.Wanted(str(model), n_ctx=n_ctx)


async def ensure(directory, model, idle_seconds=300, progress=lambda _fraction: None):
    return await lifecycle.ensure(
        wanted(model),
        directory=directory,
        log=directory / "host.log",
        idle_seconds=idle_seconds,
        progress=progress,
    )


def client(directory):
    transport = httpx.AsyncHTTPTransport(uds=str(lifecycle.socket_path(directory)))
    return httpx.AsyncClient(transport=transport, base_url="http://host", timeout=120)


def private(path):
    path.mkdir(mode=0o700, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def host(tmp_path_factory, tiny_model):
    """Yield the directory of a running host with the tiny model loaded."""
    directory = private(tmp_path_factory.mktemp("host"))
    directory.chmod(0o700)
    asyncio.run(ensure(directory, tiny_model))
    yield directory
    asyncio.run(lifecycle.stop(directory))


async def ask(directory, **body):
    async with client(directory) as http:
        return await http.post(
            "/v1/chat/completions",
            json={"messages": QUESTION, "temperature": 0, "max_tokens": 60, **body},
        )


async def lines(response):
    async for line in response.aiter_lines():
        if line.startswith("data: {"):
            yield json.loads(line[6:])


async def test_an_answer_has_text_usage_and_timings(host):
    body = (await ask(host, messages=[{"role": "user", "content": "Say hello."}])).json()
    assert body["choices"][0]["message"]["content"]
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert body["timings"]["prompt_n"] + body["timings"]["cache_n"] == usage["prompt_tokens"]


async def test_the_same_prompt_again_is_not_evaluated_again(host):
    await ask(host, max_tokens=4)
    usage = (await ask(host, max_tokens=4)).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "shell"}}]
)
async def test_a_required_call_is_made_and_valid(host, choice):
    body = (await ask(host, tools=[SHELL], tool_choice=choice)).json()
    choice = body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]["function"]
    assert call["name"] == "shell"
    assert set(json.loads(call["arguments"])) == {"command"}
    assert choice["message"]["content"] == ""


async def test_a_call_never_shows_as_text(host):
    """The complaint that users of small models have most."""
    for seed in range(3):
        messages = [
            {"role": "system", "content": "Answer with a ```json block with name and arguments."},
            *QUESTION,
        ]
        for tool_choice in ("auto", "none"):
            body = await ask(
                host,
                messages=messages,
                tools=[SHELL],
                tool_choice=tool_choice,
                temperature=0.8,
                seed=seed,
            )
            message = body.json()["choices"][0]["message"]
            assert '"name": "shell"' not in message["content"]
            assert "<tool_call>" not in message["content"]
            if tool_choice == "none":
                assert "tool_calls" not in message


async def test_an_answer_satisfies_its_schema(host):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    answer_format = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    body = (await ask(host, response_format=answer_format)).json()
    assert isinstance(json.loads(body["choices"][0]["message"]["content"])["n"], int)


async def test_stop_seed_and_max_tokens_are_obeyed(host):
    count = [{"role": "user", "content": "Count from 1 to 9 separated by spaces."}]
    full = (await ask(host, messages=count)).json()["choices"][0]["message"]["content"]
    assert "3" in full
    stopped = (await ask(host, messages=count, stop="3")).json()["choices"][0]
    assert stopped["message"]["content"] == full.split("3")[0]
    short = (await ask(host, messages=count, max_tokens=2)).json()
    assert short["choices"][0]["finish_reason"] == "length"
    assert short["usage"]["completion_tokens"] == 2
    hot = {"messages": count, "temperature": 1.5, "seed": 7, "max_tokens": 20}
    texts = [(await ask(host, **hot)).json()["choices"][0]["message"]["content"] for _ in "ab"]
    assert texts[0] == texts[1]


async def test_a_stream_gives_the_same_text_with_progress_and_usage(host):
    # Other batch shapes round otherwise, so the same tokens must be cached and none be guessed.
    plain = {"speculative.n_max": 0}
    await ask(host, **plain)
    whole = (await ask(host, **plain)).json()
    body = {
        **plain,
        "messages": QUESTION,
        "temperature": 0,
        "max_tokens": 60,
        "stream": True,
        "return_progress": True,
        "stream_options": {"include_usage": True},
    }
    async with client(host) as http, http.stream("POST", "/v1/chat/completions", json=body) as got:
        chunks = [chunk async for chunk in lines(got)]
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    progress = [c["prompt_progress"] for c in chunks if "prompt_progress" in c]
    assert progress[-1]["processed"] == progress[-1]["total"]
    assert chunks[-1]["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


async def test_a_final_message_is_continued(host):
    messages = [
        {"role": "user", "content": "What is the capital of France? One sentence."},
        {"role": "assistant", "content": "The capital of France is"},
    ]
    body = (await ask(host, messages=messages, continue_final_message=True)).json()
    assert "Paris" in body["choices"][0]["message"]["content"][:20]


async def test_hanging_up_frees_the_engine_at_once(host):
    """Otherwise Escape would leave the next question waiting for an answer nobody reads."""
    body = {"messages": QUESTION, "max_tokens": 1500, "stream": True, "temperature": 1.5}
    async with client(host) as http:
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            async for chunk in lines(response):
                if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                    break
        for _ in range(100):
            if not (await lifecycle.status(host))["busy"]:
                break
            await asyncio.sleep(0.02)
        facts = await lifecycle.status(host)
        assert not facts["busy"]
        answer = await asyncio.wait_for(ask(host, max_tokens=3), timeout=20)
        assert answer.status_code == 200


async def test_two_clients_at_once_both_get_their_answers(host):
    questions = ["Say only: one", "Say only: two"]
    answers = await asyncio.gather(
        *(ask(host, messages=[{"role": "user", "content": q}], max_tokens=8) for q in questions)
    )
    texts = [a.json()["choices"][0]["message"]["content"].lower() for a in answers]
    assert "one" in texts[0] and "two" in texts[1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": []}, "messages"),
        ({"temperature": -1}, "temperature"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "name"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "text"),
    ],
)
async def test_a_wrong_request_is_refused_by_field(host, body, field):
    response = await ask(host, **body)
    assert response.status_code == 400
    assert field in response.json()["error"]["message"]


async def test_a_prompt_too_long_has_its_own_error(host):
    response = await ask(host, messages=[{"role": "user", "content": "word " * 5000}])
    assert response.json()["error"]["type"] == "context_length_exceeded"


async def test_models_and_health_answer(host):
    async with client(host) as http:
        assert (await http.get("/health")).json() == {"status": "ok"}
        entry = (await http.get("/v1/models")).json()["data"][0]
    assert entry["meta"]["n_ctx"] == 2048


async def test_unload_frees_the_model_and_ensure_brings_it_back(host, tiny_model):
    async with client(host) as http:
        await http.post("/admin/unload")
        refused = await ask(host)
        assert refused.status_code == 503
    seen = []
    await ensure(host, tiny_model, progress=seen.append)
    assert seen
    assert (await ask(host, max_tokens=2)).status_code == 200


async def test_a_killed_host_is_replaced(tmp_path, tiny_model):
    """A crash in native code takes down the host only."""
    directory = private(tmp_path / "run")
    await ensure(directory, tiny_model)
    pid = (await lifecycle.status(directory))["pid"]
    os.kill(pid, signal.SIGKILL)
    while (await lifecycle.status(directory)) is not None:
        await asyncio.sleep(0.02)
    assert lifecycle.socket_path(directory).exists()  # left behind, and in nobody's way
    await ensure(directory, tiny_model)
    assert (await lifecycle.status(directory))["pid"] != pid
    assert await lifecycle.stop(directory)
    assert not await lifecycle.stop(directory)


async def test_two_starts_at_once_give_one_host(tmp_path, tiny_model):
    directory = private(tmp_path / "run")
    await asyncio.gather(*(ensure(directory, tiny_model) for _ in range(3)))
    assert "Traceback" not in (directory / "host.log").read_text()
    await lifecycle.stop(directory)


async def test_an_idle_host_ends_by_itself(tmp_path, tiny_model):
    directory = private(tmp_path / "run")
    await ensure(directory, tiny_model, idle_seconds=0.3)
    for _ in range(200):
        if await lifecycle.status(directory) is None:
            break
        await asyncio.sleep(0.05)
    assert await lifecycle.status(directory) is None


async def test_a_file_that_is_no_model_is_reported_with_its_name(tmp_path):
    directory = private(tmp_path / "run")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(UnavailableError, match=r"broken\.gguf"):
        await ensure(directory, broken)
    await lifecycle.stop(directory)


async def test_a_context_too_large_for_the_memory_says_what_would_fit(tmp_path, tiny_model):
    """The kernel grants any memory and then ends some process; the user would never know why."""
    directory = private(tmp_path / "run")
    asked = lifecycle.Wanted(str(tiny_model), n_ctx=100_000_000)
    with pytest.raises(UnavailableError) as raised:
        await lifecycle.ensure(
            asked,
            directory=directory,
            log=directory / "host.log",
            idle_seconds=60,
            progress=lambda _fraction: None,
        )
    assert tiny_model.name in str(raised.value)
    assert "100,000,000 tokens" in str(raised.value)
    assert "tokens would fit: lower `host.context`" in str(raised.value)
    # The host lives on and takes a smaller one.
    await ensure(directory, tiny_model)
    await lifecycle.stop(directory)


async def test_an_answer_at_the_end_of_the_context_ends_as_a_full_context(host):
    """The agent makes room and goes on; an answer cut in silence would be taken for a whole one."""
    story = "once upon a time " * 490
    chat = ChatClient("http://host/v1", socket=lifecycle.socket_path(host), extensions=True)
    messages = [Message("user", f"{story}\nWrite a long story of many pages.")]
    written = ""
    try:
        with pytest.raises(ContextFullError):
            async for event in chat.stream(ChatRequest(messages, max_tokens=2000)):
                written += event.text if isinstance(event, ChatText) else ""
    finally:
        await chat.aclose()
    assert written


def test_the_socket_is_for_its_user_only(host):
    assert stat.S_IMODE(lifecycle.socket_path(host).stat().st_mode) == 0o600
    assert stat.S_IMODE(host.stat().st_mode) == 0o700


def test_a_directory_that_others_can_enter_is_refused(tmp_path):
    open_to_all = tmp_path / "run"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    with pytest.raises(UnavailableError, match="0700"):
        lifecycle.runtime_directory({"QWENTERM_RUNTIME_DIR": str(open_to_all)})
