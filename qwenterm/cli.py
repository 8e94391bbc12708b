"""The command line: arguments in, a front end out. Imports nothing heavy, so help comes at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from qwenterm import __version__
from qwenterm.core.errors import EXIT_INTERRUPTED, EXIT_NO_ANSWER, EXIT_USAGE, QwentermError

_COMMANDS = {
    "models": "the catalogue and what is on disk: list, pull, rm, path",
    "host": "the resident model process: status, start, stop, log",
    "serve": "the model on a TCP port, for other programs",
    "config": "the settings: show, path, set",
    "doctor": "what is missing on this machine, and its remedy",
}
# What a shell reports for a program that SIGPIPE ends: nobody read on.
_EXIT_PIPE = 141
_MODES = ("ask", "edits", "auto", "plan")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status of its table."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    try:
        status = _run(arguments)
        # Here, because what fails at the interpreter's last flush is printed as a crash.
        sys.stdout.flush()
        return status
    except OSError as error:
        # A full disk, a pipe that nobody reads: the last flush must not fail over it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return _EXIT_PIPE
        sys.stderr.write(f"qwenterm: {error}\n")
        return EXIT_NO_ANSWER


def _run(arguments: Sequence[str]) -> int:
    if arguments in (["--version"], ["-V"]):
        sys.stdout.write(f"qwenterm {__version__}\n")
        return 0
    try:
        if arguments and arguments[0] in _COMMANDS:
            return _command(arguments[0], arguments[1:])
        return _prompt(_parser().parse_args(arguments))
    except QwentermError as error:
        sys.stderr.write(f"qwenterm: {error}\n")
        return error.status
    except KeyboardInterrupt:
        sys.stderr.write("qwenterm: interrupted\n")
        return EXIT_INTERRUPTED


def _open_closed_streams() -> None:
    """Put a sink where `>&-` left nothing: Python has None there, and nobody expects that."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _command(name: str, arguments: Sequence[str]) -> int:
    # Imported here: `--version` and `--help` must not wait for them.
    from qwenterm import app  # noqa: PLC0415

    return app.run_command(name, arguments)


def _prompt(options: argparse.Namespace) -> int:
    if options.prompt is not None and options.question is not None:
        raise QwentermUsage("give the prompt once: after -p, or alone")
    prompt = options.prompt if options.prompt is not None else options.question
    piped = not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty())
    wants_oneshot = (
        options.prompt is not None or options.schema or options.output_format != "text" or piped
    )
    from qwenterm import app  # noqa: PLC0415 - the heavy part begins here

    flags = {
        "model": options.model,
        "permission_mode": options.permission_mode,
        "endpoint.base_url": options.base_url,
    }
    if wants_oneshot:
        return app.run_oneshot(
            prompt, flags, folder=options.cd, form=options.output_format, schema=options.schema
        )
    return app.run_tui(prompt or "", flags, folder=options.cd)


class QwentermUsage(QwentermError):
    """A wrong command line that argparse cannot see."""

    status = EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    commands = "\n".join(f"  {name:8} {text}" for name, text in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="qwenterm",
        description="A terminal assistant that runs a language model on your own machine.",
        epilog=f"commands (qwenterm COMMAND --help):\n{commands}\n\n"
        "exit status: 0 answered, 1 no answer, 2 usage or configuration, 3 model or endpoint\n"
        "unavailable, 4 an approval was needed and nobody could give it, 130 interrupted",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("question", nargs="?", metavar="PROMPT", help="start with this prompt")
    parser.add_argument("-p", dest="prompt", metavar="PROMPT", help="answer this and end")
    parser.add_argument("--output-format", choices=("text", "json", "stream-json"), default="text")
    parser.add_argument("--schema", metavar="FILE", help="JSON schema that the answer must satisfy")
    parser.add_argument("--permission-mode", choices=_MODES, help="how much needs no question")
    parser.add_argument("-m", "--model", help="catalogue id, or path of a GGUF file")
    parser.add_argument("--base-url", metavar="URL", help="an OpenAI-compatible server to use")
    parser.add_argument("--cd", metavar="DIR", help="work in this folder")
    parser.add_argument("-V", "--version", action="version", version=f"qwenterm {__version__}")
    return parser
