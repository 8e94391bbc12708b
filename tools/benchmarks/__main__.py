"""`tools/bench engine`: figures as JSON on standard output, as a table on standard error."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenterm import config as configuration
from qwenterm.models.resolve import resolve
from tools.benchmarks import measures
from tools.benchmarks.host import Host

PARTS = ("decode", "prefill", "first", "session", "draft")
DEPTHS = (0, 2048, 8192)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="tools/bench")
    commands = parser.add_subparsers(dest="command", required=True)
    engine = commands.add_parser("engine", help="the engine, next to llama.cpp's own programs")
    engine.add_argument("--model", help="an id of the catalogue or a GGUF file", default="starter")
    engine.add_argument("--llama-bench", default="", metavar="PROGRAM")
    engine.add_argument("--llama-server", default="", metavar="PROGRAM")
    engine.add_argument("--pairs", type=int, default=5)
    engine.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    engine.add_argument("--depths", type=int, nargs="*", default=list(DEPTHS))
    engine.add_argument("--no-tools", action="store_true", help="a session without calls")
    engine.add_argument("parts", nargs="*", default=list(PARTS), metavar="|".join(PARTS))
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    path = _model(options.model)
    result: dict[str, Any] = {"model": path.name, "threads": options.threads}
    for part in options.parts:
        result[part] = _measure(part, path, options)
        _show(part, result[part])
    print(json.dumps(result, indent=1))


def _model(name: str) -> Path:
    if name.endswith(".gguf"):
        return Path(name).resolve()
    config = configuration.load(flags={"model": name})
    return resolve(config, say=lambda line: print(line, file=sys.stderr)).path


def _measure(part: str, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    n_ctx = max([0, *options.depths]) + 1024 if part == "decode" else 8192
    threads, pairs = options.threads, options.pairs
    with Host(path, n_ctx=n_ctx, threads=threads, warm=part == "first") as host:
        if part == "decode":
            bench = options.llama_bench
            return {
                str(depth): measures.decode(host, path, bench, threads, depth, pairs)
                for depth in options.depths
            }
        if part == "prefill":
            return measures.prefill(host, path, options.llama_bench, threads, pairs)
        if part == "first":
            return measures.first_token(host)
        if part == "session":
            server, tools = options.llama_server, not options.no_tools
            return measures.sessions(host, path, server, threads, n_ctx, tools)
        return measures.drafting(host, pairs)


def _show(name: str, figures: Mapping[str, Any]) -> None:
    for key, value in figures.items():
        if isinstance(value, Mapping):
            _show(f"{name} {key}", value)
        else:
            shown = f"{value:.3f}" if isinstance(value, float) else str(value)
            print(f"{name + ' ' + key:45} {shown}", file=sys.stderr)


main()
