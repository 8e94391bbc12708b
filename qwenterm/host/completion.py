"""One chat completion: from a validated request to deltas, on the engine's thread.

Brings chat and engine together: renders and tokenizes the prompt, evaluates it, then draws token
by token while the parser watches. A call is constrained by its grammar from its first token; a
call begun in another notation is taken back and begun again in the right one.
"""

from __future__ import annotations

import codecs
import json
import secrets
import time
from collections.abc import Callable, Sequence
from enum import Enum

from qwenterm.chat.formats import OPEN, CallSyntax, ToolSpec, recognise
from qwenterm.chat.parser import Kind, OutputParser
from qwenterm.chat.template import render
from qwenterm.core.errors import ContextFullError
from qwenterm.engine.generate import CancelledError, Context, Generation
from qwenterm.engine.llama import schema_rules
from qwenterm.engine.sampling import GrammarError, Sampling
from qwenterm.host.deltas import Call, Delta, Finish, Finished, Progress, Text, Thinking
from qwenterm.host.requests import CompletionRequest, InvalidRequestError
from qwenterm.host.stops import StopFilter


class _Step(Enum):
    """What becomes of a drawn token."""

    TAKE = "take it"
    OPENED = "take it, a call begins"
    CLOSED = "take it, a call is complete"
    STOPPED = "take it and stop"
    BACK = "do not take it; what it completes is taken back"


class Completion:
    """Runs one request; `run` blocks and calls `emit` with each delta."""

    def __init__(
        self,
        context: Context,
        template: str,
        request: CompletionRequest,
        emit: Callable[[Delta], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._context = context
        self._llama = context.llama
        self._request = request
        self._emit = emit
        self._cancelled = cancelled
        self._syntax: CallSyntax = recognise(template)
        try:
            self._tools: Sequence[ToolSpec] = request.callable_tools()
            self._call_grammar = (
                self._syntax.grammar(self._tools, schema_rules) if self._tools else ""
            )
            schema = request.answer_schema()
            self._answer_grammar = schema_rules({"root": schema}) if schema is not None else ""
        except ValueError as error:
            raise InvalidRequestError(str(error)) from None
        self._prompt = render(
            template,
            [message.for_template() for message in request.messages],
            [tool.model_dump() for tool in request.tools],
            continue_final=request.continue_final_message,
            variables=request.chat_template_kwargs,
        )
        thinking = self._prompt.text.endswith("<think>\n")
        # With tools in the prompt the model may write a call even when it must not: the parser
        # watches for that too.
        watched = bool(request.tools) and not self._answer_grammar
        self._parser = OutputParser(thinking=thinking, calls=watched)
        self._pieces: list[bytes] = []  # of the generated tokens, so that some can be taken back
        self._call: str | None = None  # the text of the call being written
        self._calls = 0
        self._wrote_text = False
        self._stops = StopFilter(request.stop)
        self._banned: frozenset[int] = frozenset()
        self._surplus = 0  # bytes of generated tokens that are to be taken back

    def run(self) -> None:
        """Evaluate, generate, emit.

        Raises `InvalidRequestError`, `ContextFullError` (prompt too long), `CancelledError`.
        """
        started = time.monotonic()
        tokens = self._llama.tokenize(self._prompt.text, self._prompt.untrusted)

        def progress(processed: int, total: int, cached: int) -> None:
            elapsed = (time.monotonic() - started) * 1000
            self._emit(Progress(processed, total, cached, elapsed))

        prefill = self._context.prefill(tokens, progress=progress, cancelled=self._cancelled)
        prompt_ms = (time.monotonic() - started) * 1000
        request = self._request
        seed = request.seed if request.seed is not None else secrets.randbits(32)
        sampling = Sampling(request.temperature, request.top_k, request.top_p, request.min_p, seed)
        generation = Generation(self._context, sampling)
        begun = time.monotonic()
        try:
            reason, count = self._generate(generation)
        except GrammarError as error:
            raise InvalidRequestError(str(error)) from None
        finally:
            generation.close()
        self._emit(
            Finished(
                reason,
                prefill.total,
                prefill.cached,
                count,
                prompt_ms,
                (time.monotonic() - begun) * 1000,
            )
        )

    def _generate(self, generation: Generation) -> tuple[Finish, int]:
        limit = self._request.max_completion_tokens or self._request.max_tokens
        limit = limit or self._llama.n_ctx
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        count = 0
        reason: Finish = "stop"
        try:
            self._require(generation)
            while True:
                if self._cancelled():
                    raise CancelledError
                if count >= limit:
                    reason = "length"
                    break
                token = generation.draw(self._banned)
                if self._llama.is_end(token):
                    break
                count += 1
                self._banned = frozenset()
                piece = self._llama.piece(token)
                step = self._read(decoder.decode(piece), token, piece)
                if step is _Step.BACK:
                    decoder.reset()
                    self._steer(generation, token)
                    continue
                generation.take(token)
                self._pieces.append(piece)
                if step is _Step.OPENED:
                    generation.sampler.constrain(self._call_grammar)
                elif step is _Step.CLOSED:
                    generation.sampler.constrain(None)
                    if not self._request.parallel_tool_calls:
                        break
                elif step is _Step.STOPPED:
                    break
                self._require(generation)
        except ContextFullError:
            reason = "length"
        if self._call is None:
            for part in self._parser.finish():
                self._emit_part(part.kind, part.text)
            self._emit_text(self._stops.finish())
        if self._calls and reason == "stop":
            reason = "tool_calls"
        return reason, count

    def _require(self, generation: Generation) -> None:
        """Once the thinking is over, begin what the request requires."""
        if self._parser.thinking or self._wrote_text or self._call is not None or self._calls:
            return
        if self._answer_grammar:
            if not generation.sampler.constrained:
                generation.sampler.constrain(self._answer_grammar)
        elif self._request.must_call:
            self._open_call(generation)

    def _read(self, text: str, token: int, piece: bytes) -> _Step:
        """Digest the text of a drawn token and say what is to become of the token."""
        if self._call is not None:
            self._call += text
            if not self._syntax.closed(self._call):
                return _Step.TAKE
            self._close_call()
            return _Step.CLOSED
        for part in self._parser.feed(text):
            if part.kind is Kind.CALL_OPENED and self._tools and not part.text:
                self._call = ""
                return _Step.OPENED
            if part.kind in (Kind.CALL_OPENED, Kind.FOREIGN_CALL):
                opened = OPEN + part.text if part.kind is Kind.CALL_OPENED else part.text
                self._surplus = len(opened.encode()) - len(piece)
                return _Step.BACK
            self._emit_part(part.kind, part.text)
            if self._stops.stopped:
                return _Step.STOPPED
        return _Step.TAKE

    def _steer(self, generation: Generation, token: int) -> None:
        """Take back a call that was begun wrongly, and begin it rightly or not at all.

        `token` was drawn and not taken; before it, as many tokens go as make up the rest.
        """
        first = token
        gone = 0
        context = generation.context
        while self._surplus > 0 and self._pieces:
            self._surplus -= len(self._pieces.pop())
            gone += 1
            first = context.tokens[-gone]
        kept = context.tokens[: len(context.tokens) - gone]
        # One token more goes and is evaluated again, so that there are logits to draw from.
        context.prefill(kept, progress=_ignore, cancelled=self._cancelled)
        self._parser.resume()
        if self._tools:
            self._open_call(generation)
        else:
            self._banned = frozenset([first])

    def _open_call(self, generation: Generation) -> None:
        opening = self._llama.tokenize(("\n" if self._wrote_text else "") + OPEN)
        generation.force(opening)
        self._pieces += [self._llama.piece(token) for token in opening]
        generation.sampler.constrain(self._call_grammar)
        self._call = ""

    def _close_call(self) -> None:
        text, self._call = self._call or "", None
        name, arguments = self._syntax.read(text, self._tools)
        self._calls += 1
        self._parser.resume()
        call_id = f"call_{secrets.token_hex(8)}"
        self._emit(Call(call_id, name, json.dumps(arguments, ensure_ascii=False)))

    def _emit_part(self, kind: Kind, text: str) -> None:
        if kind is Kind.THINKING:
            self._emit(Thinking(text))
        else:
            self._emit_text(self._stops.feed(text))

    def _emit_text(self, text: str) -> None:
        if text:
            self._wrote_text = True
            self._emit(Text(text))


def _ignore(_processed: int, _total: int, _cached: int) -> None:
    """Progress that nobody needs to see."""
