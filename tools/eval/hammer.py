"""Two clients that never let a host rest: random turns, cancels, and kills of the host.

Nothing may crash, no answer may be broken, and the resident memory must not grow. The first third
of the time has kills; the rest is one life of the host, whose memory is compared.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import httpx

from qwenterm.host import lifecycle

WORDS = [
    "file",
    "folder",
    "test",
    "value",
    "error",
    "list",
    "name",
    "path",
    "line",
    "state",
    "read",
    "write",
    "open",
    "close",
]
TOOL = {
    "type": "function",
    "function": {
        "name": "read",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "line": {"type": "integer"}},
            "required": ["path"],
        },
    },
}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Hammer:
    """One run; `problems` must stay empty."""

    def __init__(self, model: Path, minutes: float, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="qh-"))
        self.problems: list[str] = []
        self.counts = {"answers": 0, "cancels": 0, "lost": 0, "kills": 0}
        self.memory: list[tuple[float, int, int]] = []
        self._wanted = lifecycle.Wanted(
            str(model),
            2048,
            cache_mb=256,
            warm_folder=str(self.folder / "prompts"),
            warm_mb=64,
            pinned=True,
        )
        self._dice = random.Random(seed)
        self._begun = time.monotonic()
        self._calm = self._begun + minutes * 20
        self._end = self._begun + minutes * 60

    async def run(self) -> dict[str, Any]:
        """Hammer until the time is over and return the figures."""
        await self._ensure()
        await asyncio.gather(self._client(), self._client(), self._watch(), self._kill())
        facts = await lifecycle.status(self.folder)
        await lifecycle.stop(self.folder)
        life = [rss for when, rss, _ in self.memory if when > self._calm + 30]
        quarter = max(1, len(life) // 4)
        return {
            **self.counts,
            "problems": self.problems,
            "rss_mb_first_quarter": round(statistics.median(life[:quarter]) / 1e6),
            "rss_mb_last_quarter": round(statistics.median(life[-quarter:]) / 1e6),
            "rss_mb_most": round(max(life) / 1e6),
            "cache_mb_most": round(max(cache for _, _, cache in self.memory) / 1e6),
            "evaluated_tokens": facts["evaluated_tokens"] if facts else None,
        }

    async def _ensure(self) -> None:
        await lifecycle.ensure(
            self._wanted,
            directory=self.folder,
            log=self.folder / "log",
            idle_seconds=3600,
            progress=lambda _fraction: None,
        )

    async def _watch(self) -> None:
        while time.monotonic() < self._end:
            await asyncio.sleep(2)
            facts = await lifecycle.status(self.folder)
            if facts is not None:
                row = (time.monotonic(), facts["memory_bytes"], facts["cache_bytes"])
                self.memory.append(row)

    async def _kill(self) -> None:
        while True:
            await asyncio.sleep(self._dice.uniform(20, 60))
            if time.monotonic() > self._calm:
                return
            facts = await lifecycle.status(self.folder)
            if facts is not None:
                os.kill(facts["pid"], signal.SIGKILL)
                self.counts["kills"] += 1
                await self._ensure()

    async def _client(self) -> None:
        dice = self._dice
        messages: list[dict[str, Any]] = []
        while time.monotonic() < self._end:
            if len(messages) > 10 or dice.random() < 0.1:
                messages = []
            if not messages:
                messages.append({"role": "system", "content": self._text(dice.choice([5, 200]))})
            elif dice.random() < 0.2:  # back to an earlier turn
                del messages[1 + 2 * dice.randrange((len(messages) - 1) // 2 + 1) :]
            messages.append({"role": "user", "content": self._text(dice.randint(1, 120))})
            answer = await self._ask(messages)
            if answer is None:
                messages.pop()
            else:
                messages.append({"role": "assistant", "content": answer})

    async def _ask(self, messages: list[dict[str, Any]]) -> str | None:
        """Return the answer, None if it was cancelled or lost; note what is wrong with it."""
        dice = self._dice
        kind = dice.choice(["text", "text", "call", "schema"])
        body: dict[str, Any] = {
            "messages": messages,
            "stream": True,
            "max_tokens": dice.randint(1, 120),
            "temperature": dice.choice([0, 0.7, 1.5]),
        }
        if kind == "call":
            body |= {"tools": [TOOL], "tool_choice": "required"}
        if kind == "schema":
            body["response_format"] = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
        give_up = dice.uniform(0, 4) if dice.random() < 0.3 else 60
        try:
            with anyio.fail_after(give_up):
                return await self._stream(kind, body)
        except TimeoutError:
            self.counts["cancels"] += 1
            if give_up == 60:
                self.problems.append(f"no end after 60 s: {kind}")
            return None
        except httpx.TransportError:
            self.counts["lost"] += 1
            await asyncio.sleep(0.2)
            return None

    async def _stream(self, kind: str, body: dict[str, Any]) -> str | None:
        text, finish = "", ""
        calls: list[str] = []
        socket = str(lifecycle.socket_path(self.folder))
        transport = httpx.AsyncHTTPTransport(uds=socket, verify=False)
        async with (
            httpx.AsyncClient(transport=transport, timeout=120) as http,
            http.stream("POST", "http://host/v1/chat/completions", json=body) as response,
        ):
            if response.status_code != 200:
                said = (await response.aread()).decode()
                if "loading" not in said and "no model" not in said:
                    self.problems.append(f"{response.status_code}: {said[:200]}")
                await asyncio.sleep(0.2)
                return None
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    self.problems.append(str(chunk["error"])[:200])
                    return None
                for choice in chunk["choices"]:
                    text += choice["delta"].get("content") or ""
                    for call in choice["delta"].get("tool_calls", ()):
                        calls.append(call["function"]["arguments"])
                    finish = choice["finish_reason"] or finish
        self.counts["answers"] += 1
        self._check(kind, text, finish, calls)
        return text

    def _check(self, kind: str, text: str, finish: str, calls: list[str]) -> None:
        if not finish:
            self.problems.append(f"{kind}: the answer has no end")
        if kind == "call" and finish == "tool_calls" and "path" not in json.loads(calls[0]):
            self.problems.append(f"call without its argument: {calls}")
        if kind == "call" and finish == "stop":
            self.problems.append(f"no call although one was required: {text[:80]!r}")
        if kind == "schema" and finish == "stop":
            try:
                good = isinstance(json.loads(text)["n"], int)
            except (ValueError, KeyError):
                good = False
            if not good:
                self.problems.append(f"schema not satisfied: {text[:80]!r}")

    def _text(self, count: int) -> str:
        return " ".join(self._dice.choice(WORDS) for _ in range(count))


def hammer(model: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Run for so many minutes and return the figures."""
    return asyncio.run(Hammer(model, minutes, seed).run())
