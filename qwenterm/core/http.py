"""httpx without its own command line.

That part is imported with the package whenever rich is installed, takes 100 ms of every one-shot,
and is not used here; httpx copes with its absence by design. Everything in qwenterm that needs
httpx takes it from here.
"""

from __future__ import annotations

import sys
from typing import Any, cast

# None makes the import fail, and httpx goes on as it does where the extra is not installed.
cast("dict[str, Any]", sys.modules).setdefault("httpx._main", None)

import httpx  # noqa: E402

__all__ = ["httpx"]
