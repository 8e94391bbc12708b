"""Choosing the next token: a sampler chain in C, and a grammar that may be switched on and off.

The grammar is not part of the chain. Running it over the whole vocabulary costs several
milliseconds a token, so the chain samples first and the grammar only checks the winner; when it
objects, the whole distribution is filtered by the grammar and sampled again.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from qwenterm.engine.llama import Llama, lib


class GrammarError(ValueError):
    """llama.cpp refused the grammar."""


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 is greedy; `seed` makes a draw repeatable on the same build."""

    temperature: float = 0.2
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    seed: int = 0


class Sampler:
    """A chain for one generation; `close` frees it."""

    def __init__(self, llama: Llama, sampling: Sampling) -> None:
        self._llama = llama
        self._grammar: Any = None
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for link in _links(sampling):
            lib.llama_sampler_chain_add(self._chain, link)
        self._candidates: np.ndarray[Any, Any] | None = None

    def close(self) -> None:
        """Free the native samplers. Twice is harmless."""
        self.constrain(None)
        if self._chain:
            lib.llama_sampler_free(self._chain)
        self._chain = None

    def constrain(self, grammar: str | None) -> None:
        """Start obeying a GBNF grammar from the next token on (its rule `root`), or stop.

        Raises `GrammarError`.
        """
        if self._grammar:
            lib.llama_sampler_free(self._grammar)
        self._grammar = None
        if grammar is None:
            return
        vocab = self._llama.vocab_pointer
        self._grammar = lib.llama_sampler_init_grammar(vocab, grammar.encode(), b"root")
        if not self._grammar:
            raise GrammarError(f"llama.cpp refused this grammar:\n{grammar}")

    @property
    def constrained(self) -> bool:
        """Return whether a grammar is active."""
        return bool(self._grammar)

    def sample(self, banned: frozenset[int] = frozenset()) -> int:
        """Return the next token for the last evaluated position, none of `banned`."""
        token = int(lib.llama_sampler_sample(self._chain, self._llama.context_pointer, -1))
        if token not in banned and self._allows(token):
            return token
        return self._sample_filtered(banned)

    def accept(self, token: int) -> None:
        """Tell the grammar which token was really taken (also for forced ones)."""
        if self._grammar:
            lib.llama_sampler_accept(self._grammar, token)

    def allows(self, token: int) -> bool:
        """Return whether the grammar would take `token` next."""
        return self._allows(token)

    def _allows(self, token: int) -> bool:
        if not self._grammar:
            return True
        single = (lib.llama_token_data * 1)(lib.llama_token_data(token, 1.0, 0.0))
        array = lib.llama_token_data_array(single, 1, -1, False)
        lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return single[0].logit > float("-inf")

    def _sample_filtered(self, banned: frozenset[int]) -> int:
        if self._candidates is None:
            kind = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
            self._candidates = np.zeros(self._llama.n_vocab, dtype=kind)
        candidates = self._candidates
        candidates["id"] = np.arange(self._llama.n_vocab, dtype=np.int32)
        candidates["logit"] = self._llama.logits()
        candidates["p"] = 0
        for token in banned:
            candidates["logit"][token] = -np.inf
        pointer = ctypes.cast(candidates.ctypes.data, lib.llama_token_data_p)
        array = lib.llama_token_data_array(pointer, self._llama.n_vocab, -1, False)
        if self._grammar:
            lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)


def _links(sampling: Sampling) -> list[Any]:
    if sampling.temperature <= 0:
        return [lib.llama_sampler_init_greedy()]
    links: list[Any] = []
    if sampling.top_k > 0:
        links.append(lib.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1:
        links.append(lib.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        links.append(lib.llama_sampler_init_min_p(sampling.min_p, 1))
    links.append(lib.llama_sampler_init_temp(sampling.temperature))
    links.append(lib.llama_sampler_init_dist(sampling.seed & 0xFFFFFFFF))
    return links
