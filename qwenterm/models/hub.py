"""Model files over HTTP from Hugging Face or ModelScope: where they are, and fetching in ranges.

Owns the URLs, the first answer within a time limit, and the resumed download into a `Partial`.
`HF_ENDPOINT` (a mirror), `HF_HUB_OFFLINE` and the Hugging Face token are respected;
`MODELSCOPE_ENDPOINT` names a mirror of ModelScope.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import constants, hf_hub_url

from qwenterm.core.http import httpx
from qwenterm.models.catalog import CatalogModel
from qwenterm.models.partial import Partial, SourceError

HubName = Literal["huggingface", "modelscope"]

# A hub that has answered may pause this long between two reads before the connection is renewed.
_READ_SECONDS = 30
_RENEWALS = 5


@dataclass(frozen=True)
class Address:
    """Where a file is and what to send along."""

    url: str
    headers: Mapping[str, str]


def address(model: CatalogModel, hub: HubName, environ: Mapping[str, str]) -> Address:
    """Return where `hub` has the file; raises `SourceError` if it is not to be asked."""
    # Ranges count bytes of the file, not of a compressed form of it.
    headers = {"accept-encoding": "identity", "user-agent": "qwenterm"}
    if hub == "huggingface" and model.huggingface:
        if _is_on(environ, "HF_HUB_OFFLINE"):
            raise SourceError("HF_HUB_OFFLINE is set")
        place = model.huggingface
        endpoint = environ.get("HF_ENDPOINT", "").rstrip("/") or None
        url = hf_hub_url(place.repo, model.file, revision=place.revision, endpoint=endpoint)
        token = _token(environ)
        return Address(url, {**headers, "authorization": f"Bearer {token}"} if token else headers)
    if hub == "modelscope" and model.modelscope:
        place = model.modelscope
        base = environ.get("MODELSCOPE_ENDPOINT", "").rstrip("/") or "https://modelscope.cn"
        url = f"{base}/models/{place.repo}/resolve/{place.revision}/{model.file}"
        return Address(url, headers)
    raise SourceError(f"does not have {model.id}")


def _is_on(environ: Mapping[str, str], variable: str) -> bool:
    return environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def _token(environ: Mapping[str, str]) -> str:
    """Return the user's Hugging Face token, empty if there is none.

    Not through the library: since 2.x its headers and tokens may ask the network first, for as
    long as that takes, and tell the hub which program called.
    """
    if _is_on(environ, "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return ""
    try:
        return environ.get("HF_TOKEN") or Path(constants.HF_TOKEN_PATH).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def ask(place: Address, seconds: float) -> None:
    """Ask for the first byte; raises `SourceError` unless a good answer comes within `seconds`.

    The request runs in a thread of its own, because looking up a name can hang for longer than
    any time-out of a socket.
    """
    outcome: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_ask, args=(place, seconds, outcome), daemon=True).start()
    try:
        problem = outcome.get(timeout=seconds)
    except queue.Empty:
        problem = f"no answer within {seconds:g} seconds"
    if problem:
        raise SourceError(problem)


def _ask(place: Address, seconds: float, outcome: queue.SimpleQueue[str]) -> None:
    headers = {**place.headers, "range": "bytes=0-0"}
    try:
        with httpx.stream("GET", place.url, headers=headers, timeout=seconds) as response:
            good = response.is_success or response.is_redirect
            outcome.put("" if good else f"answered {response.status_code}")
    except httpx.TimeoutException:
        outcome.put(f"no answer within {seconds:g} seconds")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        outcome.put(f"not reachable ({error})")


def fetch(place: Address, partial: Partial, progress: Callable[[int, int], None]) -> None:
    """Append what is missing; a lost connection is renewed where it broke.

    Raises `SourceError` if the hub refuses, offers a file of another size, or stays away.
    """
    failures = 0
    timeout = httpx.Timeout(_READ_SECONDS, connect=10)
    with httpx.Client(follow_redirects=True, timeout=timeout) as client:
        while partial.missing:
            before = partial.length
            try:
                _fetch_once(client, place, partial, progress)
                problem = "it ended early"
            except httpx.HTTPError as error:
                problem = str(error) or type(error).__name__
            failures = 0 if partial.length > before else failures + 1
            if failures > _RENEWALS:
                raise SourceError(f"the connection was lost ({problem})")
            if failures:
                time.sleep(0.1 * 2**failures)


def _fetch_once(
    client: httpx.Client, place: Address, partial: Partial, progress: Callable[[int, int], None]
) -> None:
    start = partial.length
    headers = {**place.headers, "range": f"bytes={start}-"}
    with client.stream("GET", place.url, headers=headers) as response:
        if response.status_code == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
            if not span or int(span[1]) != start:
                raise SourceError("answered with another range than the one asked for")
            offered = int(span[2])
        elif response.status_code == 200:  # no ranges here: from the beginning
            partial.truncate(0)
            offered = int(response.headers.get("content-length") or partial.total)
        elif response.status_code in (408, 429) or response.status_code >= 500:
            raise httpx.RemoteProtocolError(f"status {response.status_code}")
        else:
            raise SourceError(f"answered {response.status_code}")
        if offered != partial.total:
            raise SourceError(f"has a file of {offered:,} bytes instead of {partial.total:,}")
        # As they come: httpx would hold back what does not fill a chunk, and a kill would lose it.
        for chunk in response.iter_raw():
            partial.append(chunk)
            progress(partial.length, partial.total)
