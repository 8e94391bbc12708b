"""A host of its own for measuring: the real process over its real socket."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from qwenterm.host import lifecycle


@dataclass
class Answer:
    """A streamed answer; times in seconds from the request on."""

    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    first: float = 0.0
    last: float = 0.0
    pieces: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)

    @property
    def decode_rate(self) -> float:
        """Tokens per second from the first token on, as the client sees it."""
        return (self.timings["predicted_n"] - 1) / (self.last - self.first)


class Host:
    """Starts, asks and stops a host in a folder of its own."""

    def __init__(self, model: Path, *, n_ctx: int, threads: int, warm: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="qb-"))
        (self.folder / "run").mkdir(mode=0o700)
        self._wanted = lifecycle.Wanted(
            str(model),
            n_ctx,
            threads=threads,
            warm_folder=str(self.folder / "prompts") if warm else "",
            warm_mb=1024 if warm else 0,
            pinned=True,
        )

    def start(self) -> float:
        """Start and load; return the seconds."""
        started = time.monotonic()
        asyncio.run(
            lifecycle.ensure(
                self._wanted,
                directory=self.folder / "run",
                log=self.folder / "log",
                idle_seconds=3600,
                progress=lambda _fraction: None,
            )
        )
        return time.monotonic() - started

    def stop(self) -> None:
        """End the process; what it saved on disk stays."""
        asyncio.run(lifecycle.stop(self.folder / "run"))

    def close(self) -> None:
        """Stop and remove everything."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Host:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> dict[str, Any]:
        """Return what the host says of itself."""
        with self._client() as http:
            return http.get("/admin/status").json()

    def ask(self, messages: list[dict[str, Any]], **body: Any) -> Answer:
        """Stream one answer."""
        with self._client() as http:
            return stream(http, "/v1/chat/completions", messages, **body)

    def _client(self) -> httpx.Client:
        socket = str(lifecycle.socket_path(self.folder / "run"))
        transport = httpx.HTTPTransport(uds=socket, verify=False)
        return httpx.Client(transport=transport, base_url="http://host", timeout=600)


def stream(http: httpx.Client, path: str, messages: list[dict[str, Any]], **body: Any) -> Answer:
    """Send a chat request and time what comes back."""
    answer = Answer()
    options = {"include_usage": True}
    request = {"messages": messages, "stream": True, "stream_options": options, **body}
    started = time.monotonic()
    with http.stream("POST", path, json=request) as response:
        if response.status_code != 200:
            raise SystemExit(f"the server refuses: {response.read().decode()[:500]}")
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise SystemExit(f"the server fails: {chunk['error']}")
            answer.usage = chunk.get("usage") or answer.usage
            answer.timings = chunk.get("timings") or answer.timings
            for choice in chunk.get("choices", ()):
                delta = choice["delta"]
                text = (delta.get("content") or "") + (delta.get("reasoning_content") or "")
                if text or delta.get("tool_calls"):
                    answer.last = time.monotonic() - started
                    answer.first = answer.first or answer.last
                    answer.pieces += 1
                answer.text += delta.get("content") or ""
                answer.calls += delta.get("tool_calls") or []
    return answer
