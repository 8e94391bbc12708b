"""Runs an evaluation: ask, check, print, and keep the results as JSON."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwenterm import config as configuration
from qwenterm.models.resolve import resolve
from tools.eval import calls, everyday, hammer, schemas, workspace

_RESULTS = Path(__file__).parent / "results"
_LONGEST = 600


def main() -> int:
    """Run what the arguments say; the exit status is 1 when the bar is missed."""
    parser = argparse.ArgumentParser(prog="tools/eval/run", description=__doc__)
    parser.add_argument("what", choices=("everyday", "calls", "schemas", "hammer", "selftest"))
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--trace", action="store_true", help="print each step")
    parser.add_argument("--save", metavar="NAME", help="keep the result as results/NAME.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30, help="of hammering")
    parser.add_argument("--count", type=int, default=1000, help="of random schemas")
    options = parser.parse_args()
    if options.what == "selftest":
        return selftest()
    if options.what in ("schemas", "hammer"):
        return run_engine(options)
    rows = run_everyday(options) if options.what == "everyday" else run_calls(options)
    good = sum(row["ok"] for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    print(f"{good} of {len(rows)} right, {seconds:.0f} s")
    if options.save:
        summary = {"model": options.model, "right": good, "of": len(rows), "rows": rows}
        _RESULTS.mkdir(exist_ok=True)
        (_RESULTS / f"{options.save}.json").write_text(json.dumps(summary, indent=1) + "\n")
    bar = 12 if options.what == "everyday" else 10
    return 0 if options.only or good >= bar else 1


def run_engine(options: argparse.Namespace) -> int:
    """Try the engine itself: random schemas, or two clients without mercy."""
    path = Path(options.model)
    if path.suffix != ".gguf":
        path = resolve(configuration.load(flags={"model": options.model}), say=print).path
    if options.what == "schemas":
        problems = schemas.schemas(path, options.count, options.seed)
        print(*problems, f"{options.count - len(problems)} of {options.count} right", sep="\n")
        return bool(problems)
    figures = hammer.hammer(path, options.minutes, options.seed)
    print(json.dumps(figures, indent=1))
    return bool(figures["problems"])


def selftest() -> int:
    """Feed every check outcomes that must pass and must not: a check that cannot fail is none."""
    wrong = 0
    for task in everyday.TASKS:
        for outcome, expected in [(task.right, True), *((bad, False) for bad in task.wrong)]:
            with tempfile.TemporaryDirectory() as scratch:
                folder = workspace.build(Path(scratch) / "shop")
                for name, text in outcome.files.items():
                    path = folder / name
                    if text is None:
                        path.unlink()
                    else:
                        path.write_text(text, encoding="utf-8")
                problem = task.check(folder, outcome.answer)
            if (problem == "") is not expected:
                wrong += 1
                print(f"{task.name}: {outcome} was judged {problem or 'right'!r}")
    print(f"{len(everyday.TASKS)} checks, {wrong} misjudged outcomes")
    return 1 if wrong else 0


def run_everyday(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Ask every task in a fresh repository."""
    rows: list[dict[str, Any]] = []
    for task in everyday.TASKS:
        if options.only and task.name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = workspace.build(Path(scratch) / "shop")
            events, status, seconds = ask(
                folder, task.prompt, options, stdin=task.stdin, mode=task.mode
            )
            ended = events[-1] if events else {}
            answer = str(ended.get("answer", ""))
            try:
                problem = task.check(folder, answer)
            except (OSError, ValueError, subprocess.TimeoutExpired) as error:
                problem = f"the check failed: {error}"
        if not events or ended.get("type") != "turn_ended":
            problem = f"the program ended with {status}"
        rows.append(_row(task.name, problem, answer, events, status, seconds))
        _print(rows[-1], events, options)
    return rows


def run_calls(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Ask each prompt and look at the first thing that the model does."""
    rows: list[dict[str, Any]] = []
    for prompt in calls.PROMPTS:
        if options.only and prompt not in options.only:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = workspace.build(Path(scratch) / "shop")
            events, status, seconds = ask(folder, prompt, options)
        text = "".join(event["text"] for event in events if event["type"] == "text_delta")
        finished = [event for event in events if event["type"] == "tool_finished"]
        if calls.leaked(text):
            problem = "a call leaked into the text"
        elif not finished:
            problem = "no call"
        elif any(
            event["text"].startswith(("invalid arguments", "there is no such tool"))
            for event in finished
        ):
            problem = "a malformed call"
        else:
            problem = ""
        answer = str(events[-1].get("answer", "")) if events else ""
        rows.append(_row(prompt, problem, answer, events, status, seconds))
        _print(rows[-1], events, options)
    return rows


def ask(
    folder: Path, prompt: str, options: argparse.Namespace, *, stdin: str = "", mode: str = "auto"
) -> tuple[list[dict[str, Any]], int, float]:
    """Return the events, exit status and seconds of one call of the real program."""
    command = [sys.executable, "-m", "qwenterm", "-p", prompt, "--output-format", "stream-json"]
    command += ["--permission-mode", mode, "--cd", str(folder), "--model", options.model]
    started = time.monotonic()
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "QWENTERM_SEED": str(options.seed)},
        timeout=900,
    )
    seconds = time.monotonic() - started
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not events:
        print(done.stderr.strip(), file=sys.stderr)
    return events, done.returncode, seconds


def _row(
    name: str,
    problem: str,
    answer: str,
    events: Sequence[dict[str, Any]],
    status: int,
    seconds: float,
) -> dict[str, Any]:
    return {
        "name": name,
        "ok": problem == "",
        "problem": problem,
        "answer": answer[:_LONGEST],
        "calls": [
            f"{event['name']} {json.dumps(event['arguments'], ensure_ascii=False)}"[:_LONGEST]
            for event in events
            if event["type"] == "tool_started"
        ],
        "status": status,
        "seconds": round(seconds, 1),
    }


def _print(
    row: dict[str, Any], events: Sequence[dict[str, Any]], options: argparse.Namespace
) -> None:
    mark = "ok  " if row["ok"] else "FAIL"
    print(f"{mark} {row['name']} ({row['seconds']} s, {len(row['calls'])} calls) {row['problem']}")
    if options.trace:
        for event in events:
            if event["type"] == "tool_started":
                print("     >", event["name"], json.dumps(event["arguments"])[:300])
            elif event["type"] == "tool_finished":
                print("     <", event["text"][:300].replace("\n", "\n       "))
            elif event["type"] == "notice":
                print("     !", event["text"])
        print("     =", row["answer"].replace("\n", "\n       "))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
