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

from qwenterm.engine.llama import Llama, Logits
from qwenterm.engine.native import lib
from qwenterm.engine.vocabulary import Vocabulary

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
# So many of the likeliest tokens are looked at first. They suffice if one that is allowed is this
# much above the rest: what is left out would be drawn less than once in three thousand times.
_SHORTLISTS, _SURE = (256, 8192), 8.0


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


class Grammar:
    """A parsed GBNF grammar with the rule `root`, from which samplers take copies.

    Parsing the rules of eight tools takes several milliseconds, a copy almost nothing.
    """

    def __init__(self, vocabulary: Vocabulary, text: str) -> None:
        """Parse; raises `GrammarError`."""
        self.pointer = lib.llama_sampler_init_grammar(vocabulary.pointer, text.encode(), b"root")
        if not self.pointer:
            raise GrammarError(f"llama.cpp refused this grammar:\n{text}")

    def __del__(self) -> None:
        # Not a method to call: requests hold on to a grammar that the cache has dropped.
        if getattr(self, "pointer", None):
            lib.llama_sampler_free(self.pointer)


class GrammarCache:
    """The grammars used last, parsed."""

    def __init__(self, vocabulary: Vocabulary, most: int = 32) -> None:
        self._vocabulary = vocabulary
        self._most = most
        self._held: dict[str, Grammar] = {}

    def get(self, text: str) -> Grammar:
        """Return a grammar; raises `GrammarError`."""
        grammar = self._held.pop(text, None) or Grammar(self._vocabulary, text)
        self._held[text] = grammar
        while len(self._held) > self._most:
            self._held.pop(next(iter(self._held)))
        return grammar


class Sampler:
    """A chain for one generation; `close` frees it."""

    def __init__(self, llama: Llama, sampling: Sampling) -> None:
        self._llama = llama
        self._grammar: Any = None
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for link in _links(sampling):
            lib.llama_sampler_chain_add(self._chain, link)
        self._data = np.zeros(0, dtype=_CANDIDATE)  # what llama.cpp reads must stay alive

    def close(self) -> None:
        """Free the native samplers. Twice is harmless."""
        self.constrain(None)
        if self._chain:
            lib.llama_sampler_free(self._chain)
        self._chain = None

    def constrain(self, grammar: Grammar | None) -> None:
        """Start obeying a grammar from the next token on, or stop."""
        if self._grammar:
            lib.llama_sampler_free(self._grammar)
        self._grammar = None if grammar is None else lib.llama_sampler_clone(grammar.pointer)

    @property
    def constrained(self) -> bool:
        """Return whether a grammar is active."""
        return bool(self._grammar)

    def sample(self, source: int | Logits, banned: frozenset[int] = frozenset()) -> int:
        """Return the next token, none of `banned`.

        `source` is an output of the last `decode` or the logits themselves.
        """
        if isinstance(source, int):
            token = int(lib.llama_sampler_sample(self._chain, self._llama.context_pointer, source))
            if token not in banned and self.allows(token):
                return token
            source = self._llama.logits(source)
        return self._sample_filtered(source, banned)

    def accept(self, token: int) -> None:
        """Tell the grammar which token was really taken (also for forced ones)."""
        if self._grammar:
            lib.llama_sampler_accept(self._grammar, token)

    def allows(self, token: int) -> bool:
        """Return whether the grammar would take `token` next."""
        if not self._grammar:
            return True
        single = (lib.llama_token_data * 1)(lib.llama_token_data(token, 1.0, 0.0))
        array = lib.llama_token_data_array(single, 1, -1, False)
        lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return single[0].logit > float("-inf")

    def _sample_filtered(self, logits: Logits, banned: frozenset[int]) -> int:
        if banned:
            logits = np.array(logits)
            logits[list(banned)] = -np.inf
        if self._grammar:
            # The grammar looks at each candidate's letters: 39 ms for a whole vocabulary.
            for size in (size for size in _SHORTLISTS if size < len(logits)):
                ids = np.argpartition(logits, -size)[-size:].astype(np.int32)
                array = self._candidates(ids, logits[ids])
                floor = float(self._data["logit"].min())
                lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
                if float(self._data["logit"].max()) > floor + _SURE:
                    lib.llama_sampler_apply(self._chain, ctypes.byref(array))
                    return int(array.data[array.selected].id)
        every = np.arange(len(logits), dtype=np.int32)
        array = self._candidates(every, logits)
        if self._grammar:
            lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _candidates(self, ids: np.ndarray[Any, np.dtype[np.int32]], logits: Logits) -> Any:
        self._data = np.zeros(len(ids), dtype=_CANDIDATE)
        self._data["id"] = ids
        self._data["logit"] = logits
        pointer = ctypes.cast(self._data.ctypes.data, lib.llama_token_data_p)
        return lib.llama_token_data_array(pointer, len(ids), -1, False)


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
