"""The two ways to a model that answers: the resident host, and an endpoint of the user's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from qwenterm import config as configuration
from qwenterm.client import ChatClient, ChatEvent, ChatRequest
from qwenterm.config import Config, EndpointSettings
from qwenterm.core.errors import UsageError
from qwenterm.host import lifecycle
from qwenterm.models.resolve import ResolvedModel, resolve

# Files up to 4 billion parameters at four bits.
_SMALL_BYTES = 3_000_000_000


class ResidentHost:
    """The host of this user: found or started, with the model of the settings loaded."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self.small = False
        self._config = config
        self._say = say
        self._client: ChatClient | None = None

    async def prepare(self, progress: Callable[[float], None]) -> None:
        """Start or find the host and have the model loaded; raises `UnavailableError`."""
        model = resolve(self._config, say=self._say)
        self.small = model.size <= _SMALL_BYTES
        directory = lifecycle.runtime_directory()
        socket = await lifecycle.ensure(
            wanted(self._config, model),
            directory=directory,
            log=log_path(),
            idle_seconds=self._config.host.idle_minutes * 60,
            progress=progress,
        )
        if self._client is not None:
            await self._client.aclose()
        self._client = ChatClient("http://host/v1", socket=socket, model=model.id, extensions=True)

    def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        """Yield the answer's events."""
        return _opened(self._client).stream(request)


class Endpoint:
    """An OpenAI-compatible server that the user named; its model counts as large."""

    small = False

    def __init__(self, settings: EndpointSettings) -> None:
        key = ""
        if settings.api_key_env:
            key = os.environ.get(settings.api_key_env, "")
            if not key:
                raise UsageError(
                    f"endpoint.api_key_env names {settings.api_key_env}, which is not set"
                )
        if not settings.base_url.startswith(("http://", "https://")):
            raise UsageError(
                f"endpoint.base_url {settings.base_url!r}: write it with http:// or https://, "
                "for example http://localhost:8000/v1"
            )
        self._named = settings.model
        self._client = ChatClient(
            settings.base_url, model=settings.model, api_key=key, timeout=settings.timeout_seconds
        )

    async def prepare(self, progress: Callable[[float], None]) -> None:
        """Find the model's name if the user gave none; raises `UnavailableError`."""
        del progress
        if not self._client.model:
            names = await self._client.model_names()
            self._client.model = names[0] if names else ""

    def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        """Yield the answer's events."""
        return self._client.stream(request)


def wanted(config: Config, model: ResolvedModel) -> lifecycle.Wanted:
    """Return what the host should load for `model` under these settings."""
    host = config.host
    return lifecycle.Wanted(
        path=str(model.path),
        n_ctx=host.context or model.n_ctx,
        n_gpu_layers=host.n_gpu_layers,
        threads=host.threads,
        batch=host.batch,
        sequences=host.conversations,
        cache_mb=host.cache_mb,
        warm_folder=str(configuration.cache_directory() / "prompts"),
        warm_mb=host.disk_cache_mb,
        pinned=bool(host.context),
    )


def log_path() -> Path:
    """Return the host's log file."""
    return configuration.state_directory() / "host.log"


def _opened(client: ChatClient | None) -> ChatClient:
    if client is None:
        raise RuntimeError("stream() before prepare()")
    return client
