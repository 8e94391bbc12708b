"""One chat completion: from a validated request to deltas.

Brings chat and engine together: renders and tokenizes the prompt, then draws token by token while
the parser watches. A call is constrained by its grammar from its first token; a call begun in
another notation is taken back and begun again in the right one. `task` is what the scheduler runs.
"""

from __future__ import annotations

import codecs
import json
import secrets
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import Enum

from qwenterm.chat.formats import JSON, OPEN, CallSyntax, ToolSpec, recognise
from qwenterm.chat.parser import Kind, OutputParser
from qwenterm.chat.template import render
from qwenterm.engine.draft import Drafter, Pace
from qwenterm.engine.generate import Evaluate, Generation, Output, Seat, Steps
from qwenterm.engine.sampling import Grammar, GrammarCache, GrammarError, Sampling
from qwenterm.engine.schedule import Task
from qwenterm.engine.schema import schema_rules
from qwenterm.engine.slots import Slots
from qwenterm.host.deltas import Call, Delta, Finish, Finished, Progress, Text, Thinking
from qwenterm.host.requests import CompletionRequest, InvalidRequestError
from qwenterm.host.stops import StopFilter
from qwenterm.host.token_log import TokenLog

# What is written in the model's place when its thinking has used up its tokens.
_ENOUGH = "\n\nI have thought about this long enough and answer now.\n</think>\n\n"
# From this share of the budget on, the end of a line is as good a place to stop as any.
_SOFT = 0.8


class _Step(Enum):
    """What becomes of a drawn token."""

    TAKE = "take it"
    OPENED = "take it, a call begins"
    CLOSED = "take it, a call is complete"
    STOPPED = "take it and stop"
    BACK = "do not take it; what it completes is taken back"


@dataclass(frozen=True)
class Workbench:
    """What all completions with one loaded model share."""

    slots: Slots
    template: str
    log: TokenLog
    grammars: GrammarCache
    pace: Pace


class Completion:
    """One request. `emit` is called with each delta, on the engine's thread."""

    def __init__(
        self,
        bench: Workbench,
        request: CompletionRequest,
        emit: Callable[[Delta], None],
        cancelled: Callable[[], bool],
    ) -> None:
        """Render and check; raises `InvalidRequestError`, and what `render` raises."""
        self._bench = bench
        self._vocabulary = bench.slots.llama.vocabulary
        self._request = request
        self._emit = emit
        self._cancelled = cancelled
        self._syntax: CallSyntax = recognise(bench.template)
        try:
            self._tools: Sequence[ToolSpec] = request.callable_tools()
            self._call_grammar = self._grammar(
                self._syntax.grammar(self._tools, schema_rules) if self._tools else ""
            )
            schema = request.answer_schema()
            self._answer_grammar = self._grammar(
                schema_rules({"root": schema}) if schema is not None else ""
            )
        except (ValueError, GrammarError) as error:
            raise InvalidRequestError(str(error)) from None
        rendered = render(
            bench.template,
            [message.for_template() for message in request.messages],
            [tool.model_dump() for tool in request.tools],
            continue_final=request.continue_final_message,
            variables=request.template_variables,
        )
        self._prompt = bench.log.encode(request, rendered)
        thinking = rendered.text.endswith("<think>\n")
        # With tools in the prompt the model may write a call even when it must not: the parser
        # watches for that too.
        watched = bool(request.tools) and self._answer_grammar is None
        self._parser = OutputParser(thinking=thinking, calls=watched)
        self._taken: list[int] = []  # the generated tokens
        self._call: str | None = None  # the text of the call being written
        self._calls: list[tuple[str, str]] = []
        self._text: list[str] = []
        self._stops = StopFilter(request.stop)
        self._banned: frozenset[int] = frozenset()
        self._surplus = 0  # bytes of generated tokens that are to be taken back
        self._thought = 0  # tokens of thinking
        self._started = time.monotonic()
        self._cached = 0
        self._drafter = None if request.draft_most == 0 else Drafter(bench.pace, self._repeated())

    def _grammar(self, text: str) -> Grammar | None:
        return self._bench.grammars.get(text) if text else None

    def _repeated(self) -> list[list[int]]:
        """Return the predicted text as the answer may spell it: plain, or inside a JSON string."""
        content = self._request.prediction.content if self._request.prediction else ""
        if not content:
            return []
        spellings = [content]
        if self._syntax is JSON:
            spellings.append(json.dumps(content, ensure_ascii=False)[1:-1])
        whole = [(0, 2 * len(content) + 2)]
        return [self._vocabulary.tokenize(text, whole) for text in spellings]

    def task(self, ended: Callable[[BaseException | None], None]) -> Task:
        """Return the work for the scheduler."""
        prompt = self._prompt
        return Task(
            prompt.tokens,
            self._generate,
            self._progress,
            self._cancelled,
            ended,
            prompt.marks,
            prompt.stable,
        )

    def _progress(self, processed: int, total: int, cached: int) -> None:
        self._cached = cached
        elapsed = (time.monotonic() - self._started) * 1000
        self._emit(Progress(processed, total, cached, elapsed))

    def _generate(self, seat: Seat, output: Output) -> Steps:
        prompt_ms = (time.monotonic() - self._started) * 1000
        request = self._request
        seed = request.seed if request.seed is not None else secrets.randbits(32)
        sampling = Sampling(
            request.temperature,
            request.top_k,
            request.top_p,
            request.min_p,
            seed,
        )
        generation = Generation(self._bench.slots, seat, output, sampling, self._drafter)
        begun = time.monotonic()
        try:
            reason = yield from self._write(generation)
            generation.settle()
            # The slot may lack some of these tokens again, but they are what was written.
            written = [*self._prompt.tokens, *self._taken]
            self._bench.log.remember(request, written, "".join(self._text), self._calls)
        finally:
            generation.close()
        drafter = self._drafter
        self._emit(
            Finished(
                reason,
                len(self._prompt.tokens),
                self._cached,
                len(self._taken),
                prompt_ms,
                (time.monotonic() - begun) * 1000,
                drafter.drafted if drafter else 0,
                drafter.accepted if drafter else 0,
            )
        )

    def _write(self, generation: Generation) -> Generator[Evaluate, Output, Finish]:
        request = self._request
        limit = request.max_completion_tokens or request.max_tokens
        limit = limit or self._bench.slots.llama.n_ctx
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        reason: Finish = "stop"
        drawn = 0  # also what was taken back, so that a model that insists comes to an end
        yield from self._require(generation)
        while True:
            if drawn >= limit:
                reason = "length"
                break
            if self._thought_enough(limit):
                yield from self._end_thinking(generation)
            token = generation.draw(self._banned)
            if self._vocabulary.is_end(token):
                if not request.ignore_eos or self._call is not None:
                    break
                self._banned |= {token}
                continue
            drawn += 1
            self._banned = frozenset()
            piece = self._vocabulary.piece(token)
            step = self._read(decoder.decode(piece), piece)
            if step is _Step.BACK:
                decoder.reset()
                yield from self._steer(generation, token)
                continue
            self._thought += self._parser.thinking
            self._taken.append(token)
            over = step is _Step.CLOSED and not request.parallel_tool_calls
            if over or step is _Step.STOPPED or len(self._taken) >= limit:
                # The last token is evaluated with the next prompt.
                reason = "stop" if over or step is _Step.STOPPED else "length"
                break
            yield from generation.take(token)
            if step is _Step.OPENED:
                yield from self._begin_call(generation)
            elif step is _Step.CLOSED:
                generation.sampler.constrain(None)
            yield from self._require(generation)
        if self._call is None:
            for part in self._parser.finish():
                self._emit_part(part.kind, part.text)
            self._emit_text(self._stops.finish())
        if self._calls and reason == "stop":
            reason = "tool_calls"
        return reason

    def _force(self, generation: Generation, text: str) -> Steps:
        tokens = self._vocabulary.tokenize(text)
        self._taken += tokens
        yield from generation.force(tokens)

    def _require(self, generation: Generation) -> Steps:
        """Once the thinking is over, begin what the request requires."""
        if self._parser.thinking or self._text or self._call is not None or self._calls:
            return
        if self._answer_grammar:
            if not generation.sampler.constrained:
                generation.sampler.constrain(self._answer_grammar)
        elif self._request.must_call:
            yield from self._open_call(generation)

    def _thought_enough(self, limit: int) -> bool:
        """Return whether the thinking must end here, so that an answer follows."""
        if not self._parser.thinking:
            return False
        budget = self._request.thinking_budget
        # A limit on all of the answer must leave room for more than thoughts.
        budget = limit * 3 // 4 if budget is None else min(budget, limit * 3 // 4)
        if self._thought >= budget:
            return True
        last = self._vocabulary.piece(self._taken[-1]) if self._taken else b""
        return self._thought >= budget * _SOFT and last.endswith(b"\n")

    def _end_thinking(self, generation: Generation) -> Steps:
        yield from self._force(generation, _ENOUGH)
        for part in self._parser.feed(_ENOUGH):
            self._emit_part(part.kind, part.text)
        yield from self._require(generation)

    def _read(self, text: str, piece: bytes) -> _Step:
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

    def _steer(self, generation: Generation, token: int) -> Steps:
        """Take back a call that was begun wrongly, and begin it rightly or not at all.

        `token` was drawn and not taken; before it, as many tokens go as make up the rest.
        """
        first = token
        gone = 0
        while self._surplus > 0 and gone < len(self._taken):
            gone += 1
            first = self._taken[-gone]
            self._surplus -= len(self._vocabulary.piece(first))
        if gone:
            del self._taken[-gone:]
            yield from generation.rewind(generation.length - gone)
        self._parser.resume()
        if self._tools:
            yield from self._open_call(generation)
        else:
            self._banned = frozenset([first])

    def _open_call(self, generation: Generation) -> Steps:
        yield from self._force(generation, ("\n" if self._text else "") + OPEN)
        yield from self._begin_call(generation)

    def _begin_call(self, generation: Generation) -> Steps:
        """Write what every call begins with, and let the grammar take over."""
        generation.sampler.constrain(self._call_grammar)
        # Without a space at its end: tokens begin with one.
        self._call = self._syntax.opening.rstrip(" ")
        yield from self._force(generation, self._call)

    def _close_call(self) -> None:
        text, self._call = self._call or "", None
        name, arguments = self._syntax.read(text, self._tools)
        shown = json.dumps(arguments, ensure_ascii=False)
        self._calls.append((name, shown))
        self._parser.resume()
        self._emit(Call(f"call_{secrets.token_hex(8)}", name, shown))

    def _emit_part(self, kind: Kind, text: str) -> None:
        if kind is Kind.THINKING:
            self._emit(Thinking(text))
        else:
            self._emit_text(self._stops.feed(text))

    def _emit_text(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._emit(Text(text))
