"""A loaded model with its context: the only module that imports llama_cpp.

Owns the native pointers and turns llama.cpp's return codes into exceptions. It knows nothing of
chat formats or requests. One `Llama` belongs to one thread at a time; sequence 0 is the only
sequence in use.
"""

from __future__ import annotations

import bisect
import ctypes
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as _native
from llama_cpp.llama_grammar import SchemaConverter

from qwenterm.core.errors import UnavailableError

lib: Any = _native

# Attribute bits of llama_token_attr; user-defined tokens such as <tool_call> are matched by
# llama_tokenize even with parse_special off, so untrusted text has to be cut inside them.
_ATTR_UNKNOWN, _ATTR_CONTROL, _ATTR_USER_DEFINED = 1 << 0, 1 << 3, 1 << 4
_ALL = -1


class LoadCancelledError(Exception):
    """The progress callback asked to stop loading."""


class DecodeError(Exception):
    """llama_decode failed; `code` is its return value (1: no room in the cache)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"llama_decode returned {code}")
        self.code = code


@dataclass(frozen=True)
class LoadParameters:
    """How to load: context length in tokens, GPU layers (-1: all), threads, prompt chunk size."""

    n_ctx: int
    n_gpu_layers: int = -1
    threads: int = 0
    batch: int = 0


def gpu_supported() -> bool:
    """Return whether this build of llama.cpp can offload to a GPU."""
    return bool(lib.llama_supports_gpu_offload())


def default_threads() -> int:
    """Return the number of cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


class Llama:
    """Model weights plus one context."""

    def __init__(
        self, path: Path, parameters: LoadParameters, progress: Callable[[float], bool]
    ) -> None:
        """Load `path`; `progress` gets 0..1 and returns False to stop.

        Raises `UnavailableError` when llama.cpp cannot load the file or allocate the context,
        `LoadCancelledError` when `progress` said so.
        """
        self.path = path
        self.gpu = gpu_supported() and parameters.n_gpu_layers != 0
        stopped = False

        def on_progress(fraction: float, _data: object) -> bool:
            nonlocal stopped
            stopped = not progress(float(fraction))
            return not stopped

        lib.llama_backend_init()
        model_params = lib.llama_model_default_params()
        # llama.cpp counts the output layer too, so "all" is simply a number no model reaches.
        wanted = parameters.n_gpu_layers
        model_params.n_gpu_layers = 999 if wanted < 0 else wanted
        self._on_progress = lib.llama_progress_callback(on_progress)
        model_params.progress_callback = self._on_progress
        self._model = lib.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            if stopped:
                raise LoadCancelledError
            raise UnavailableError(
                f"{path}: llama.cpp cannot load this file; the host's log says why "
                "(`qwenterm host log`)"
            )
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.batch = parameters.batch or (512 if self.gpu else 128)
        self._context = self._new_context(parameters)
        if not self._context:
            lib.llama_model_free(self._model)
            raise UnavailableError(
                f"{path}: no memory for a context of {parameters.n_ctx} tokens; "
                "lower `host.context` in the configuration"
            )
        self._memory = lib.llama_get_memory(self._context)
        self.n_ctx = int(lib.llama_n_ctx(self._context))
        self.n_vocab = int(lib.llama_vocab_n_tokens(self._vocab))
        self._special = self._special_texts()
        self._pieces: dict[int, bytes] = {}

    def _new_context(self, parameters: LoadParameters) -> Any:
        params = lib.llama_context_default_params()
        threads = parameters.threads or default_threads()
        params.n_ctx = parameters.n_ctx
        params.n_batch = self.batch
        params.n_ubatch = min(self.batch, 512)
        params.n_seq_max = 1
        params.n_threads = threads
        params.n_threads_batch = threads
        params.no_perf = True
        return lib.llama_init_from_model(self._model, params)

    def close(self) -> None:
        """Free context and model; the object is unusable afterwards. Twice is harmless."""
        if self._context:
            lib.llama_free(self._context)
            lib.llama_model_free(self._model)
        self._context = self._model = None

    # -- facts ---------------------------------------------------------------------------------

    @property
    def chat_template(self) -> str:
        """Return the jinja template in the model file, empty if it has none."""
        raw = lib.llama_model_chat_template(self._model, None)
        return raw.decode("utf-8", "replace") if raw else ""

    @property
    def n_params(self) -> int:
        """Return the number of weights."""
        return int(lib.llama_model_n_params(self._model))

    @property
    def size(self) -> int:
        """Return the size of the weights in bytes."""
        return int(lib.llama_model_size(self._model))

    @property
    def context_bytes(self) -> int:
        """Return the bytes that the state of the context takes when saved (an upper bound)."""
        return int(lib.llama_state_get_size(self._context))

    # -- text and tokens -----------------------------------------------------------------------

    def _special_texts(self) -> re.Pattern[str] | None:
        """Return a pattern that matches the text of every token that is more than its letters."""
        mask = _ATTR_UNKNOWN | _ATTR_CONTROL | _ATTR_USER_DEFINED
        texts: list[str] = []
        for token in range(self.n_vocab):
            if int(lib.llama_vocab_get_attr(self._vocab, token)) & mask:
                raw = lib.llama_vocab_get_text(self._vocab, token)
                text = raw.decode("utf-8", "ignore") if raw else ""
                if len(text) > 1:
                    texts.append(re.escape(text))
        texts.sort(key=len, reverse=True)
        return re.compile(f"(?=({'|'.join(texts)}))") if texts else None

    def tokenize(self, text: str, untrusted: Sequence[tuple[int, int]] = ()) -> list[int]:
        """Return the token ids of `text`, control tokens included.

        `untrusted` holds (start, end) ranges whose letters must stay letters: a control token's
        spelling that touches one is cut after its first character, so that it becomes plain text.
        """
        tokens: list[int] = []
        start = 0
        for cut in self._cuts(text, untrusted):
            tokens += self._tokenize(text[start:cut])
            start = cut
        return tokens + self._tokenize(text[start:])

    def _cuts(self, text: str, untrusted: Sequence[tuple[int, int]]) -> list[int]:
        if self._special is None or not untrusted:
            return []
        ranges = sorted(untrusted)
        ends = [end for _, end in ranges]
        cuts: list[int] = []
        # Every position is looked at, because cutting one spelling may leave an overlapping one.
        for match in self._special.finditer(text):
            first = bisect.bisect_right(ends, match.start())
            if first < len(ranges) and ranges[first][0] < match.start() + len(match.group(1)):
                cuts.append(match.start() + 1)
        return cuts

    def _tokenize(self, text: str) -> list[int]:
        if not text:
            return []
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 8
        buffer = (lib.llama_token * room)()
        count = lib.llama_tokenize(self._vocab, raw, len(raw), buffer, room, False, True)
        if count < 0:
            raise ValueError(f"text of {len(raw)} bytes cannot be tokenized")
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token as text, control tokens by their name."""
        cached = self._pieces.get(token)
        if cached is None:
            buffer = (ctypes.c_char * 256)()
            count = lib.llama_token_to_piece(self._vocab, token, buffer, 256, 0, True)
            cached = self._pieces[token] = bytes(buffer[: max(count, 0)])
        return cached

    def is_end(self, token: int) -> bool:
        """Return whether the token ends a generation.

        Any control token does: a model that writes the beginning of another message, which some
        small ones do, has nothing more to say in this one.
        """
        return bool(
            lib.llama_vocab_is_eog(self._vocab, token)
            or int(lib.llama_vocab_get_attr(self._vocab, token)) & _ATTR_CONTROL
        )

    # -- evaluation ----------------------------------------------------------------------------

    def evaluate(self, tokens: Sequence[int]) -> None:
        """Append `tokens` (at most `batch`) to sequence 0; the last one's logits can be sampled.

        Raises `DecodeError`.
        """
        array = (lib.llama_token * len(tokens))(*tokens)
        code = lib.llama_decode(self._context, lib.llama_batch_get_one(array, len(tokens)))
        if code != 0:
            raise DecodeError(int(code))

    def forget_from(self, position: int) -> bool:
        """Drop everything from `position` on; False if this model's state cannot be cut there."""
        return bool(lib.llama_memory_seq_rm(self._memory, 0, position, _ALL))

    def forget_all(self) -> None:
        """Empty the context."""
        lib.llama_memory_clear(self._memory, True)

    def logits(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the last logits, shape (n_vocab,); valid until the next `evaluate`."""
        pointer = lib.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.n_vocab,))

    @property
    def context_pointer(self) -> Any:
        """Return the native context, for samplers."""
        return self._context

    @property
    def vocab_pointer(self) -> Any:
        """Return the native vocabulary, for grammars."""
        return self._vocab


class _Converter(SchemaConverter):  # pyright: ignore[reportUntypedBaseClass]
    """llama.cpp's converter in Python, with the bounds of whole numbers at zero and one.

    It leaves `minimum` out, and a model does ask for line 0. Other bounds are checked only when
    the call is validated.
    """

    def visit(self, schema: Any, name: str) -> Any:
        """Return the rule's name for a schema."""
        minimum = schema.get("minimum")
        plain = schema.get("type") == "integer" and not {"enum", "const", "$ref"} & set(schema)
        if plain and isinstance(minimum, int) and minimum >= 0:
            digits = "[1-9] [0-9]{0,15}" if minimum else '("0" | [1-9] [0-9]{0,15})'
            base: Any = self
            return base._add_rule(name or "root", f"{digits} space")
        return super().visit(schema, name)  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]


def schema_rules(schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """Return GBNF rules, one named after each key of `schemas`, for JSON text obeying that schema.

    Rule names may hold letters, digits and dashes. Raises `ValueError` for a schema that
    llama.cpp's converter does not understand.
    """
    order: dict[str, int] = {}
    converter: Any = _Converter(
        prop_order=order, allow_fetch=False, dotall=False, raw_pattern=False
    )
    lines: list[str] = []
    for name, schema in schemas.items():
        try:
            resolved = converter.resolve_refs(json.loads(json.dumps(schema)), name)
            rule = converter.visit(resolved, f"{name}-value")
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"unsupported JSON schema for {name}: {error}") from None
        lines.append(f"{name} ::= {rule}")
    return "\n".join([*lines, str(converter.format_grammar())])
