"""Random tools, one forced call each: every call must parse and satisfy its schema."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema

from qwenterm.chat.formats import recognise
from qwenterm.engine.checkpoints import CheckpointStore, ParkingStore
from qwenterm.engine.llama import Llama, LoadParameters
from qwenterm.engine.sampling import GrammarCache
from qwenterm.engine.schedule import Scheduler
from qwenterm.engine.slots import Slots
from qwenterm.host.completion import Completion, Workbench
from qwenterm.host.deltas import Call
from qwenterm.host.requests import CompletionRequest
from qwenterm.host.token_log import TokenLog

NAMES = [
    "path",
    "line",
    "text",
    "mode",
    "count",
    "name",
    "force",
    "items",
    "options",
    "target",
    "depth",
    "pattern",
]


def tool(dice: random.Random, number: int, *, free_text: bool) -> dict[str, Any]:
    """Return a random tool; `free_text` false has strings only as choices."""
    parameters = _object(dice, 0, free_text)
    return {"type": "function", "function": {"name": f"tool_{number}", "parameters": parameters}}


def _object(dice: random.Random, depth: int, free_text: bool) -> dict[str, Any]:
    keys = dice.sample(NAMES, dice.randint(0 if depth == 0 else 1, 4))
    return {
        "type": "object",
        "properties": {key: _value(dice, depth + 1, free_text) for key in keys},
        "required": [key for key in keys if dice.random() < 0.6],
        "additionalProperties": False,
    }


def _value(dice: random.Random, depth: int, free_text: bool) -> dict[str, Any]:
    kinds = ["string", "integer", "positive", "boolean", "choice", "number", "null"]
    if depth < 3:
        kinds += ["array", "object"]
    kind = dice.choice(kinds)
    if kind == "choice" or (kind == "string" and not free_text):
        return {"type": "string", "enum": dice.sample(["one", 'tw"o', "<three>", "vier ä"], 2)}
    if kind == "string":
        return {"type": "string", "maxLength": dice.randint(1, 30)}
    if kind == "positive":
        return {"type": "integer", "minimum": dice.choice([0, 1])}
    if kind == "array":
        items = _value(dice, depth + 1, free_text)
        return {"type": "array", "items": items, "maxItems": dice.randint(1, 3)}
    return _object(dice, depth, free_text) if kind == "object" else {"type": kind}


def workbench(model: Path) -> tuple[Workbench, Scheduler]:
    """Load a model for completions in this process."""
    llama = Llama(model, LoadParameters(n_ctx=4096), lambda _fraction: True)
    slots = Slots(llama, CheckpointStore(64 << 20), ParkingStore(0))
    scheduler = Scheduler(slots)
    log, grammars = TokenLog(llama.vocabulary), GrammarCache(llama.vocabulary)
    return Workbench(slots, llama.chat_template, log, grammars, scheduler.pace), scheduler


def forced_call(bench: Workbench, scheduler: Scheduler, offered: dict[str, Any], seed: int) -> str:
    """Force one call of a tool; return what is wrong with it, empty if nothing is."""
    request = CompletionRequest.model_validate(
        {
            "messages": [{"role": "user", "content": "Use the tool with any values."}],
            "tools": [offered],
            "tool_choice": "required",
            "temperature": 1.2,
            "seed": seed,
            "max_tokens": 1500,
        }
    )
    got: list[Any] = []
    scheduler.submit(Completion(bench, request, got.append, lambda: False).task(got.append))
    while scheduler.busy:
        scheduler.step()
    calls = [item for item in got if isinstance(item, Call)]
    errors = [item for item in got if isinstance(item, BaseException)]
    if errors or len(calls) != 1:
        return f"{len(calls)} calls, errors: {errors}"
    try:
        schema = offered["function"]["parameters"]
        jsonschema.validate(json.loads(calls[0].arguments), schema)
    except (ValueError, jsonschema.ValidationError) as error:
        return str(error).splitlines()[0]
    return "" if calls[0].name == offered["function"]["name"] else f"called {calls[0].name}"


def schemas(model: Path, count: int, seed: int) -> list[str]:
    """Return the problems of `count` forced calls."""
    bench, scheduler = workbench(model)
    # A model with raw values between tags and random weights never ends a text.
    free = recognise(bench.template).name == "json"
    dice = random.Random(seed)
    problems: list[str] = []
    for number in range(count):
        offered = tool(dice, number, free_text=free)
        problem = forced_call(bench, scheduler, offered, number)
        if problem:
            problems.append(f"{problem}: {json.dumps(offered)}")
    bench.slots.llama.close()
    return problems
