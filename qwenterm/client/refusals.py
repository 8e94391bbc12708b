"""What a server's error answer means: which of our errors it is, and one line for a person.

Servers write errors in many shapes (OpenAI's object, a bare message, a web page of a proxy). Each
becomes one line that names the server and what to look at.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any, cast

from qwenterm.core.errors import ContextFullError, QwentermError, UnavailableError

_LONGEST = 500
# OpenAI, vLLM, SGLang, llama-server and Ollama each have their own words for it.
_CONTEXT = re.compile(r"context[ _]length|context[ _]size|context window", re.I)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.I | re.S)
_NO_TEXT = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.I | re.S)


def refusal(status: int, body: bytes, where: str, location: str = "") -> QwentermError:
    """Return the error for an HTTP status that is no success; `location` is a redirect's target."""
    error = _decoded(body)
    message = _message(error)
    told = f" (HTTP {status}): {message}" if message else f" (HTTP {status})"
    if status < 400:
        return UnavailableError(
            f"{where} sends elsewhere{told.removesuffix(f': {message}')}: {location}; check "
            "`endpoint.base_url`"
        )
    if status in (401, 403):
        return UnavailableError(
            f"{where} refuses the key{told}; look at the variable that `endpoint.api_key_env` names"
        )
    if status == 404:
        return UnavailableError(
            f"{where} has no such path or model{told}; check `endpoint.base_url` and "
            "`endpoint.model`"
        )
    if status in (429, 502, 503, 504):
        return UnavailableError(f"{where} cannot answer now{told}")
    return server_error(error, f"{where} reports an error (HTTP {status})")


def server_error(error: Any, told: str = "the server reports an error") -> QwentermError:
    """Return the error for an error object, wherever it came; `told` begins the line."""
    message = _message(error)
    fields = _fields(error)
    inner = _fields(fields.get("error")) or fields
    kind = f"{inner.get('type', '')} {inner.get('code', '')}"
    if _CONTEXT.search(message) or _CONTEXT.search(kind):
        return ContextFullError(message)
    if "unavailable" in kind:
        return UnavailableError(message)
    return QwentermError(f"{told}: {message or 'no reason given'}")


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Return `text` on one line, cut."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _decoded(body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def _message(error: Any) -> str:
    """Return the words of an error in any of the known shapes; empty if it has none."""
    fields = _fields(error)
    for key in ("error", "message", "detail"):
        if fields.get(key):
            return _message(fields[key])
    text = error if isinstance(error, str) else json.dumps(error) if error else ""
    if "<" in text:
        title = _TITLE.search(text)
        text = html.unescape(_NO_TEXT.sub(" ", title.group(1) if title else text))
    return one_line(text)


def _fields(error: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", error) if isinstance(error, dict) else {}
