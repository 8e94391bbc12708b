"""Asks a person on the controlling terminal, even while stdin and stdout are pipes."""

from __future__ import annotations

import os
import termios

from qwenterm.core.events import ApprovalRequested
from qwenterm.core.types import Decision
from qwenterm.ui.render import sanitize

_PATH = "/dev/tty"
_QUESTION = "Allow? [y]es, [a]lways, [n]o: "
_COLOURS = {"+": "\x1b[32m", "-": "\x1b[31m", "@": "\x1b[36m"}


class Terminal:
    """The terminal that the user sits at, open as `descriptor`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # Two files: Python cannot read and write one that does not seek.
        self._input = os.fdopen(descriptor, encoding="utf-8", errors="replace")
        self._output = os.fdopen(os.dup(descriptor), "w", encoding="utf-8", errors="replace")
        plain = os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
        self._colour = not plain

    def in_foreground(self) -> bool:
        """Tell whether a person can answer; reading from the background stops the process."""
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return False

    async def ask(self, request: ApprovalRequested) -> Decision:
        """Show what is to be approved and return the answer; Ctrl-C and Ctrl-D mean no."""
        # Heavy, and most answers need no question.
        from prompt_toolkit import PromptSession  # noqa: PLC0415
        from prompt_toolkit.input import create_input  # noqa: PLC0415
        from prompt_toolkit.output import create_output  # noqa: PLC0415

        # What was typed before the question was there to read does not answer it.
        termios.tcflush(self._descriptor, termios.TCIFLUSH)
        self._show(request)
        session: PromptSession[str] = PromptSession(
            input=create_input(stdin=self._input),
            output=create_output(stdout=self._output),
        )
        while True:
            try:
                # Its own handler of the signal would take ours away for good.
                text = await session.prompt_async(_QUESTION, handle_sigint=False)
            except (EOFError, KeyboardInterrupt):
                return Decision(False)
            word, _, reason = text.strip().partition(" ")
            if word.lower() in ("y", "yes"):
                return Decision(True)
            if word.lower() in ("a", "always"):
                return Decision(True, scope="always")
            if word.lower() in ("n", "no"):
                return Decision(False, reason=reason)
            if text.strip():
                return Decision(False, reason=text.strip())

    def _show(self, request: ApprovalRequested) -> None:
        told = [f"{request.reason}:", *(f"  {line}" for line in request.summary.splitlines())]
        lines = [sanitize(line) for line in told]
        if request.diff:
            # Not splitlines: text that is no line of the diff must not look like one.
            diff = request.diff.removesuffix("\n").split("\n")
            lines += [self._coloured(sanitize(line)) for line in diff]
        self._output.write("\n".join(lines) + "\n")
        self._output.flush()

    def _coloured(self, line: str) -> str:
        colour = _COLOURS.get(line[:1], "")
        return f"{colour}{line}\x1b[0m" if colour and self._colour else line


def open_terminal() -> Terminal | None:
    """Return the controlling terminal, None where there is none (a daemon, CI)."""
    try:
        descriptor = os.open(_PATH, os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None
    return Terminal(descriptor)
