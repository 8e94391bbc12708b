"""Entry point of the host process; started by `lifecycle`, not by people."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

from qwenterm.host.process import run_host


def main() -> int:
    """Parse what `lifecycle` passed and serve; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qwenterm-host")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--idle-seconds", type=float, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    # The terminal that happened to start the host must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return run_host(arguments.directory, arguments.idle_seconds)


if __name__ == "__main__":
    sys.exit(main())
