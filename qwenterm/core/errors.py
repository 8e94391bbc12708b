"""Errors that end a command, each with the exit status of the command-line table.

The message is for a person: it names what is wrong and what to do. Front ends print it on stderr
as one line and exit with `status`; nothing else in the program calls `sys.exit` for them.
"""

from __future__ import annotations

EXIT_ANSWERED = 0
EXIT_NO_ANSWER = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_NEEDS_APPROVAL = 4
EXIT_INTERRUPTED = 130


class QwentermError(Exception):
    """Something a person must know about; `status` is the process's exit status."""

    status = EXIT_NO_ANSWER


class UsageError(QwentermError):
    """The command line or the configuration is wrong."""

    status = EXIT_USAGE


class UnavailableError(QwentermError):
    """No model or no endpoint can be had."""

    status = EXIT_UNAVAILABLE


class ConnectionLostError(UnavailableError):
    """The endpoint went away in the middle of a request; the request may be tried again."""


class ContextFullError(QwentermError):
    """The prompt does not fit the model's context window."""
