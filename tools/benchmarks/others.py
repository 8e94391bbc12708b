"""The same measurements on llama.cpp's own programs and on llama-cpp-python's chat call."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import llama_cpp

from tools.benchmarks.host import Answer, stream


def llama_bench(program: str, model: Path, threads: int, *arguments: str) -> list[float]:
    """Return tokens per second of each test that llama-bench was asked for."""
    command = [program, "-m", str(model), "-t", str(threads), "-r", "1", "-o", "json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [test["avg_ts"] for test in json.loads(done.stdout)]


class LlamaServer:
    """A llama-server on loopback."""

    def __init__(self, program: str, model: Path, *, n_ctx: int, threads: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._command = [program, "-m", str(model), "-c", str(n_ctx), "-t", str(threads)]
        self._command += ["--host", "127.0.0.1", "--port", str(port), "--jinja", "-np", "1"]
        # It closes a connection after an answer, so each request takes a new one.
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=600, headers={"Connection": "close"}
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LlamaServer:
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, stdout=quiet, stderr=quiet)
        for _ in range(600):
            time.sleep(0.1)
            try:
                if self._http.get("/health").status_code == 200:
                    return self
            except httpx.TransportError:
                if self._process.poll() is not None:
                    break
        raise SystemExit("llama-server does not start")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def ask(self, messages: list[dict[str, Any]], **body: Any) -> Answer:
        """Stream one answer."""
        return stream(self._http, "/v1/chat/completions", messages, **body)


class ChatCall:
    """`Llama.create_chat_completion` of llama-cpp-python, with the tokens that it evaluates."""

    def __init__(self, model: Path, *, n_ctx: int, threads: int) -> None:
        self.evaluated = 0
        self._llama: Any = llama_cpp.Llama(
            str(model), n_ctx=n_ctx, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        inner: Callable[[Any], None] = self._llama.eval

        def counting(tokens: Any) -> None:
            self.evaluated += len(tokens)
            inner(tokens)

        self._llama.eval = counting

    def ask(self, messages: list[dict[str, Any]], **body: Any) -> Answer:
        """Return one answer; only the final counts and text are known."""
        body.pop("speculative.n_max", None)
        started = time.monotonic()
        got: Any = self._llama.create_chat_completion(messages=messages, **body)
        message = got["choices"][0]["message"]
        answer = Answer(message.get("content") or "", usage=got["usage"])
        answer.last = time.monotonic() - started
        return answer

    def close(self) -> None:
        """Free the model."""
        self._llama.close()
