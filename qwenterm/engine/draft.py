"""Drafting by lookup: what came after these words before probably comes after them again.

Edits repeat most of a file, and answers repeat what was read. The next tokens are guessed from the
conversation itself, and from texts that the caller expects to be repeated, and verified in one
batch, so the output is what it would be without. `Pace` measures what a batch costs on this
machine and says how long a guess pays, which may be not at all.
"""

from __future__ import annotations

from collections.abc import Sequence

_GRAM = 4  # tokens that must agree before anything is guessed
_RECENT = 32  # earlier places that are compared
_COMPARED = 32  # tokens before a place that count for choosing among them
_LENGTHS = (2, 4, 8, 16, 24)
_REST = 24  # tokens without guesses after they did not pay


class Pace:
    """What evaluating a batch of one conversation costs, in seconds, as a line through two means.

    `redo`: a wrong guess makes the right part of it be evaluated again (recurrent models).
    """

    def __init__(self, *, redo: bool) -> None:
        self._redo = redo
        self._single = 0.0
        self._more = 0.0

    def record(self, tokens: int, seconds: float) -> None:
        """Take a measurement; batches as large as a prompt's say nothing about small ones."""
        if tokens == 1:
            self._single += (seconds - self._single) * (0.1 if self._single else 1.0)
        elif tokens <= _LENGTHS[-1] + 1 and self._single:
            slope = max(0.0, (seconds - self._single) / (tokens - 1))
            self._more += (slope - self._more) * (0.1 if self._more else 1.0)

    def best_length(self, chance: float, most: int) -> int:
        """Return how many tokens to guess if each is right with `chance`; 0: none pays."""
        if not self._single:
            return 0
        slope = self._more or self._single / 4
        best, best_rate = 0, 1.05 / self._single
        for length in _LENGTHS:
            if length > most:
                break
            all_right = chance**length
            expected = (1 - chance * all_right) / (1 - chance)
            seconds = self._single + length * slope
            if self._redo:
                seconds += (1 - all_right) * slope * expected
            if expected / seconds > best_rate:
                best, best_rate = length, expected / seconds
        return best


class Drafter:
    """Guesses for one generation; `texts` are token sequences that may be repeated."""

    def __init__(self, pace: Pace, texts: Sequence[Sequence[int]] = ()) -> None:
        self.drafted = self.accepted = 0
        self._pace = pace
        self._texts: list[Sequence[int]] = [*texts]
        self._places: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        self._indexed = 0
        # Where in the source the text goes on, and the length of the conversation at that point.
        self._cursor: tuple[int, int] | None = None
        self._seen = 0
        self._right, self._wrong = 2.0, 1.0
        self._rest = 0
        for number, text in enumerate(texts, start=1):
            self._index(number, text, 0)

    def propose(self, tokens: list[int], most: int) -> list[int]:
        """Return a guess of at most `most` tokens after the conversation `tokens`."""
        if len(tokens) < _GRAM:
            return []
        self._index(0, tokens, self._indexed)
        if self._rest > 0:
            self._rest -= 1
            return []
        length = self._pace.best_length(self._right / (self._right + self._wrong), most)
        if length == 0 and most >= _LENGTHS[0]:
            # Bad luck so far: the odds even out slowly, so that it is tried again some time.
            self._right, self._wrong, self._rest = 2.0, 1.0, _REST
            return []
        place = (self._followed(tokens) or self._longest(tokens)) if length else None
        if place is None:
            return []
        self._cursor, self._seen = place, len(tokens)
        return list(self._source(place[0], tokens)[place[1] : place[1] + length])

    def judge(self, drafted: int, accepted: int) -> None:
        """Learn how a guess went."""
        self.drafted += drafted
        self.accepted += accepted
        self._right = self._right * 0.9 + accepted
        self._wrong = self._wrong * 0.9 + (accepted < drafted)

    def _source(self, number: int, tokens: Sequence[int]) -> Sequence[int]:
        return tokens if number == 0 else self._texts[number - 1]

    def _followed(self, tokens: list[int]) -> tuple[int, int] | None:
        """Return the place in the source that was copied last, if the text still follows it.

        In a file of functions that look alike, the words alone would lead to any of them.
        """
        if self._cursor is None:
            return None
        number, place = self._cursor
        new = tokens[self._seen :]
        end = place + len(new)
        source = self._source(number, tokens)
        if list(source[place:end]) == new and end < len(source):
            return number, end
        return None

    def _index(self, number: int, tokens: Sequence[int], start: int) -> None:
        # The last tokens are left out, since nothing follows them yet.
        for end in range(max(start, _GRAM), len(tokens)):
            places = self._places.setdefault(tuple(tokens[end - _GRAM : end]), [])
            places.append((number, end))
            del places[:-_RECENT]
        if number == 0:
            self._indexed = max(start, len(tokens))

    def _longest(self, tokens: list[int]) -> tuple[int, int] | None:
        """Return the place after the longest earlier run of what the conversation ends with.

        Of several, the next one after what was copied last: a changed line is left behind there.
        """
        best, longest = None, 0
        places = self._places.get(tuple(tokens[-_GRAM:]), ())
        if self._cursor is not None:
            copied, where = self._cursor
            places = sorted(
                places,
                key=lambda place: (place[0] == copied and place[1] >= where, -place[1]),
            )
        for number, end in places:
            source = self._source(number, tokens)
            run = _GRAM
            most = min(_COMPARED, end, len(tokens))
            while run < most and tokens[-run - 1] == source[end - run - 1]:
                run += 1
            if run >= longest:
                best, longest = (number, end), run
        return best
