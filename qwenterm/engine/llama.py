"""A loaded model with one context of several sequences: native calls with types and exceptions.

Owns the native pointers and turns llama.cpp's return codes into exceptions. It knows nothing of
chat formats or requests, nor of what the sequences hold. One `Llama` belongs to one thread at a
time.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qwenterm.core.errors import UnavailableError
from qwenterm.engine.native import lib
from qwenterm.engine.vocabulary import Vocabulary

Logits = np.ndarray[Any, np.dtype[np.float32]]
State = np.ndarray[Any, np.dtype[np.uint8]]

MOST_OUTPUTS = 128  # logits in one batch

_ALL = -1
_PARTIAL = 1  # LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: without the keys and values of attention


class LoadCancelledError(Exception):
    """The progress callback asked to stop loading."""


class MemoryShortageError(Exception):
    """There is no memory for the context; the model was freed again."""


class DecodeError(Exception):
    """llama_decode failed; `code` is its return value."""

    def __init__(self, code: int) -> None:
        super().__init__(f"llama_decode returned {code}")
        self.code = code


class NoRoomError(Exception):
    """The context has no cells left for these tokens; nothing of them was evaluated."""


@dataclass(frozen=True)
class LoadParameters:
    """How to load.

    `n_ctx` is the context in tokens, shared by all sequences. `n_gpu_layers` -1 means all.
    `threads` and `batch` (prompt tokens evaluated at once) 0 let the engine choose. `sequences` is
    how many conversations may be in the context at the same time.
    """

    n_ctx: int
    n_gpu_layers: int = -1
    threads: int = 0
    batch: int = 0
    sequences: int = 4


@dataclass(frozen=True)
class Span:
    """Tokens of one sequence to evaluate from `position` on; logits for the last `outputs`."""

    sequence: int
    position: int
    tokens: Sequence[int]
    outputs: int = 0


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

        Raises `UnavailableError` when llama.cpp cannot load the file, `MemoryShortageError` when
        it cannot allocate the context, `LoadCancelledError` when `progress` said so.
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
        self.vocabulary = Vocabulary(lib.llama_model_get_vocab(self._model))
        # A model with recurrent layers cannot forget its last tokens one by one.
        self.recurrent = bool(
            lib.llama_model_is_recurrent(self._model) or lib.llama_model_is_hybrid(self._model)
        )
        # Smaller ones evaluate a prompt of 512 tokens 3% slower.
        self.batch = min(parameters.batch or 512, parameters.n_ctx)
        self.sequences = parameters.sequences
        # One more for recurrent models, to keep a state while drafted tokens are verified.
        self.spare_sequence = parameters.sequences if self.recurrent else None
        self._context = self._new_context(parameters)
        if not self._context:
            lib.llama_model_free(self._model)
            raise MemoryShortageError
        self._memory = lib.llama_get_memory(self._context)
        self.n_ctx = int(lib.llama_n_ctx(self._context))
        self._buffers = _BatchBuffers(self.batch, self.sequences + 1)

    def _new_context(self, parameters: LoadParameters) -> Any:
        params = lib.llama_context_default_params()
        threads = parameters.threads or default_threads()
        params.n_ctx = parameters.n_ctx
        params.n_batch = self.batch
        params.n_ubatch = min(self.batch, 512)
        # Logits of a whole prompt would take 300 MB, and nobody asks for them.
        params.n_outputs_max = min(self.batch, MOST_OUTPUTS)
        params.n_seq_max = self.sequences + (1 if self.recurrent else 0)
        # One pool of cells: a conversation may use all of it, and beginnings are shared.
        params.kv_unified = True
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
    def context_pointer(self) -> Any:
        """Return the native context, for samplers."""
        return self._context

    # -- evaluation ----------------------------------------------------------------------------

    def decode(self, spans: Sequence[Span]) -> list[int]:
        """Evaluate `spans`, at most `batch` tokens in all.

        Returns for each span the index of its first output, for samplers and `logits`; indices
        of one span's outputs are consecutive and valid until the next call. Raises `NoRoomError`
        (nothing was evaluated), `DecodeError` (what the memory holds is unknown).
        """
        batch, firsts = self._buffers.fill(spans)
        code = int(lib.llama_decode(self._context, batch))
        if code == 1:
            raise NoRoomError
        if code != 0:
            raise DecodeError(code)
        return firsts

    def logits(self, index: int) -> Logits:
        """Return the logits of an output, shape (n_vocab,); valid until the next `decode`."""
        pointer = lib.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary.size,))

    # -- memory --------------------------------------------------------------------------------

    def forget(self, sequence: int, position: int = 0) -> bool:
        """Drop a sequence from `position` on; False if this model's state cannot be cut there."""
        return bool(lib.llama_memory_seq_rm(self._memory, sequence, position, _ALL))

    def copy(self, source: int, target: int) -> None:
        """Make the empty sequence `target` hold what `source` holds; the cells are shared."""
        lib.llama_memory_seq_cp(self._memory, source, target, _ALL, _ALL)

    def forget_all(self) -> None:
        """Empty the context."""
        lib.llama_memory_clear(self._memory, True)

    def state_size(self, sequence: int) -> int:
        """Return the bytes of a sequence's whole state."""
        return int(lib.llama_state_seq_get_size_ext(self._context, sequence, 0))

    def state(self, sequence: int, *, partial: bool = False) -> State:
        """Return a sequence's state; `partial`: only what cannot be cut (the recurrent part).

        Raises `DecodeError` when llama.cpp cannot save it.
        """
        flags = _PARTIAL if partial else 0
        size = int(lib.llama_state_seq_get_size_ext(self._context, sequence, flags))
        data = np.empty(size, np.uint8)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        written = lib.llama_state_seq_get_data_ext(self._context, pointer, size, sequence, flags)
        if written == 0:
            raise DecodeError(0)
        return data[:written]

    def restore(self, sequence: int, state: State, *, partial: bool = False) -> bool:
        """Put a state into a sequence (empty, unless `partial`); False if it does not go in."""
        flags = _PARTIAL if partial else 0
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        size = state.nbytes
        done = lib.llama_state_seq_set_data_ext(self._context, pointer, size, sequence, flags)
        return int(done) == size


class _BatchBuffers:
    """The arrays that llama_decode reads, filled by numpy: a loop costs 4 ms for 512 tokens."""

    def __init__(self, size: int, sequences: int) -> None:
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._counts = np.ones(size, np.int32)
        self._outputs = np.zeros(size, np.int8)
        self._ids = np.arange(sequences, dtype=np.int32)
        # llama.cpp wants a pointer to a list of sequences for each token; all lists have length 1.
        self._pointers = np.zeros(size, np.uintp)
        self._addresses = [int(self._ids[i : i + 1].ctypes.data) for i in range(sequences)]
        batch = lib.llama_batch()
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._pointers),
            ("logits", self._outputs),
        ):
            kinds: dict[str, Any] = dict(lib.llama_batch._fields_)
            setattr(batch, name, ctypes.cast(array.ctypes.data, kinds[name]))
        self._batch = batch

    def fill(self, spans: Sequence[Span]) -> tuple[Any, list[int]]:
        """Return the native batch and the index of each span's first output."""
        end = 0
        firsts: list[int] = []
        for span in spans:
            start, end = end, end + len(span.tokens)
            self._tokens[start:end] = span.tokens
            self._positions[start:end] = np.arange(
                span.position, span.position + end - start, dtype=np.int32
            )
            self._pointers[start:end] = self._addresses[span.sequence]
            self._outputs[start:end] = 0
            self._outputs[end - span.outputs : end] = 1
            firsts.append(end - span.outputs)
        self._batch.n_tokens = end
        return self._batch, firsts
