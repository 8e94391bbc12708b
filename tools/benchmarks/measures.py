"""The measurements: each returns a dictionary of figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.benchmarks.host import Answer, Host
from tools.benchmarks.others import ChatCall, LlamaServer, llama_bench
from tools.benchmarks.texts import PLAIN, READ, SESSION, WRITE, code, system, user, words

Ask = Callable[..., Answer]
COUNT = 64


def decode(host: Host, model: Path, bench: str, threads: int, depth: int, pairs: int) -> dict:
    """Tokens per second while writing after `depth` tokens, free and inside a call."""
    story = [user(words(max(depth - 40, 8), depth) + "\nNow tell a very long story.")]
    save = [
        user(words(max(depth - 150, 8), depth + 1) + "\nSave a story of 300 words in story.txt.")
    ]
    inside = {"tools": [WRITE], "tool_choice": "required"}
    rows: list[tuple[float, ...]] = []
    for seed in range(pairs):
        hot = {"temperature": 1.0, "seed": seed, "speculative.n_max": 0, "max_tokens": COUNT}
        # llama-bench warms up before it measures, so the host does too.
        host.ask(story, ignore_eos=True, **{**hot, "max_tokens": 8})
        free = host.ask(story, ignore_eos=True, **hot)
        call = host.ask(save, **{**hot, "max_tokens": 2 * COUNT}, **inside)
        rate = (call.timings["predicted_n"] - 1) / call.timings["predicted_ms"] * 1000
        row = [free.decode_rate, rate]
        for answer in (free, call) if bench else ():
            start = str(answer.usage["prompt_tokens"])
            options = ("-p", "0", "-n", str(answer.timings["predicted_n"]), "-d", start)
            row.append(llama_bench(bench, model, threads, *options)[0])
        rows.append(tuple(row))
    return _against(rows, ("free", "in_call"))


def prefill(host: Host, model: Path, bench: str, threads: int, pairs: int) -> dict:
    """Prompt tokens per second for 512 new tokens."""
    rows: list[tuple[float, ...]] = []
    for seed in range(pairs):
        host.ask([user(words(490, 2000 + seed))], max_tokens=1, **PLAIN)  # as llama-bench does
        answer = host.ask([user(words(490, 1000 + seed))], max_tokens=1, **PLAIN)
        timings = answer.timings
        row = [timings["prompt_n"] / timings["prompt_ms"] * 1000]
        if bench:
            options = ("-p", str(timings["prompt_n"]), "-n", "0")
            row.append(llama_bench(bench, model, threads, *options)[0])
        rows.append(tuple(row))
    return _against(rows, ("prefill",))


def first_token(host: Host) -> dict:
    """Seconds to the first token of a one-liner after a beginning of 1,200 tokens."""
    start = system(words(1180, 77))

    def seconds(number: int) -> float:
        return host.ask([start, user(f"Say the number {number}.")], max_tokens=4, **PLAIN).first

    cold = seconds(1)
    warm = statistics.median(seconds(number) for number in range(2, 7))
    host.stop()
    load = host.start()
    disk = seconds(9)
    return {
        "cold_s": cold,
        "warm_s": warm,
        "disk_s": disk,
        "load_s": load,
        "warm_of_cold": warm / cold,
        "disk_of_cold": disk / cold,
    }


def session(ask: Ask, evaluated: Callable[[list[Answer]], int], *, tools: bool) -> dict:
    """Tokens evaluated against tokens new over twelve turns, some with a tool call."""
    messages: list[dict[str, Any]] = [system(words(600, 5))]
    answers: list[Answer] = []
    seconds = 0.0

    def turn(**more: Any) -> Answer:
        nonlocal seconds
        # Without guesses, which would count as evaluated here and nowhere else.
        answer = ask(messages, max_tokens=48, **PLAIN, **more)
        answers.append(answer)
        seconds += answer.last
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.calls:
            entries = [{key: call[key] for key in call if key != "index"} for call in answer.calls]
            message["tool_calls"] = entries
        messages.append(message)
        return answer

    offered = {"tools": [READ]} if tools else {}
    for number, question in enumerate(SESSION):
        messages.append(user(question))
        wanted = {"tool_choice": "required"} if tools and number % 3 == 1 else {}
        answer = turn(**offered, **wanted)
        if answer.calls:
            result = {"role": "tool", "content": words(60, number)}
            messages.append({**result, "tool_call_id": answer.calls[0].get("id", "")})
            turn(**offered, **({"tool_choice": "none"} if tools else {}))
    last = answers[-1].usage
    new = last["prompt_tokens"] + last["completion_tokens"]
    done = evaluated(answers)
    return {"evaluated": done, "new": new, "ratio": done / new, "seconds": seconds}


def by_timings(answers: list[Answer]) -> int:
    """Return what a server says that it evaluated."""
    return sum(a.timings["prompt_n"] + a.timings["predicted_n"] for a in answers)


def sessions(host: Host, model: Path, server: str, threads: int, n_ctx: int, tools: bool) -> dict:
    """Run the session here, on llama-server and through llama-cpp-python's chat call.

    The chat call gets it without tools, since it has no calls with these models' templates.
    """
    before = host.status()["evaluated_tokens"]
    rows = {
        "qwenterm": session(
            host.ask, lambda _answers: host.status()["evaluated_tokens"] - before, tools=tools
        )
    }
    if server:
        with LlamaServer(server, model, n_ctx=n_ctx, threads=threads) as other:
            rows["llama-server"] = session(other.ask, by_timings, tools=tools)
    chat = ChatCall(model, n_ctx=n_ctx, threads=threads)
    rows["llama-cpp-python"] = session(chat.ask, lambda _answers: chat.evaluated, tools=False)
    chat.close()
    return rows


def drafting(host: Host, pairs: int) -> dict:
    """Tokens per second of an edit that repeats 200 lines with three of them changed."""
    before = code(200)
    lines = before.split("\n")
    order = "Write the whole file again with these three lines changed and nothing else:\n"
    written = [number for number, line in enumerate(lines) if len(line) > 30]
    for number in (written[5], written[len(written) // 2], written[-5]):
        order += f"the line `{lines[number]}` becomes `{lines[number]}  # changed`\n"
    messages = [user(f"This is wrap.py:\n```python\n{before}\n```\n{order}")]
    begun = {"role": "assistant", "content": "```python\n" + "\n".join(lines[:4])}
    body = {
        "temperature": 0,
        "max_tokens": 4000,
        "stop": ["\n```"],
        "continue_final_message": True,
        "prediction": {"type": "content", "content": before},
    }
    rows: list[dict[str, Any]] = []
    for _ in range(pairs):
        plain = host.ask([*messages, begun], **{**body, "speculative.n_max": 0})
        drafted = host.ask([*messages, begun], **body)
        rows.append(
            {
                "plain": plain.decode_rate,
                "drafted": drafted.decode_rate,
                "ratio": drafted.decode_rate / plain.decode_rate,
                "same": plain.text == drafted.text,
                "tokens": plain.timings["predicted_n"],
                "changed": plain.text.count("# changed"),
                "accepted": drafted.timings["draft_n_accepted"],
                "guessed": drafted.timings["draft_n"],
            }
        )
    middle = sorted(rows, key=lambda row: row["ratio"])[len(rows) // 2]
    return {**middle, "same": all(row["same"] for row in rows)}


def _against(rows: list[tuple[float, ...]], names: tuple[str, ...]) -> dict:
    """Return medians of each column, and of its ratio to llama-bench's column, if there is one."""
    result: dict[str, float] = {}
    count = len(names)
    for place, name in enumerate(names):
        result[name] = statistics.median(row[place] for row in rows)
        if all(len(row) == 2 * count for row in rows):
            theirs = [row[count + place] for row in rows]
            ratios = (row[place] / row[count + place] for row in rows)
            result[f"{name}_of_llama_bench"] = statistics.median(ratios)
            result[f"{name}_llama_bench"] = statistics.median(theirs)
    return result
