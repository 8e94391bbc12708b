"""Guesses from what was said before: faster, and the same words as without."""

import pytest

from qwenterm.engine.draft import Drafter, Pace
from qwenterm.engine.llama import Llama, LoadParameters
from tests.stubs.bench import Bench

CODE = "".join(
    f"def step_{number}(value, factor={number}):\n"
    f"    total = value * factor + {number * 7}\n    return total - {number}\n\n"
    for number in range(12)
)


def fast_pace(redo=False):
    pace = Pace(redo=redo)
    pace.record(1, 0.02)
    pace.record(9, 0.03)
    return pace


@pytest.fixture(scope="module")
def llama(tiny_model):
    loaded = Llama(tiny_model, LoadParameters(n_ctx=4096), lambda _fraction: True)
    yield loaded
    loaded.close()


def repeat(bench, draft):
    bench.llama.forget_all()
    bench = Bench(bench.llama)
    bench.scheduler.pace = fast_pace()
    prompt = f"<|im_start|>user\nRepeat this file exactly:\n{CODE}<|im_end|>\n"
    prompt += f"<|im_start|>assistant\n{CODE[:60]}"
    return bench.run(bench.tokens(prompt), 300, draft=draft), bench


def test_a_repeated_file_is_the_same_text_in_fewer_batches(llama):
    plain, before = repeat(Bench(llama), draft=False)
    drafted, after = repeat(Bench(llama), draft=True)
    assert drafted.text == plain.text
    assert "step_5" in plain.text
    assert drafted.drafter.accepted > 150
    assert after.scheduler.counters.batches < before.scheduler.counters.batches / 2


def test_nothing_evaluated_ahead_stays_in_the_conversation(llama):
    """A guess that was left in the cache would be read by the next turn as if it had been said."""
    drafted, bench = repeat(Bench(llama), draft=True)
    held = max((slot.tokens for slot in bench.slots.slots), key=len)
    assert held[-300:] == drafted.tokens
    more = bench.run([*held, *bench.tokens("\n# and then")], 8).tokens
    llama.forget_all()
    fresh = Bench(llama)
    assert fresh.run([*held, *bench.tokens("\n# and then")], 8).tokens == more


def test_a_recurrent_model_comes_back_from_wrong_guesses(hybrid_llama):
    """Its state cannot be cut, so each wrong guess must be undone from a copy."""
    prompt = Bench(hybrid_llama).tokens("one two three four five six seven ") * 9
    hybrid_llama.forget_all()
    plain = Bench(hybrid_llama).run(prompt, 60).tokens
    # What it will say, with a word changed here and there: guesses right, then wrong.
    expected = [5 if place % 9 == 8 else token for place, token in enumerate(plain)]
    hybrid_llama.forget_all()
    bench = Bench(hybrid_llama)
    bench.scheduler.pace = fast_pace(redo=True)
    job = bench.run(prompt, 60, draft=True, texts=([*prompt[-6:], *expected],))
    assert job.tokens == plain
    assert job.drafter.drafted > job.drafter.accepted > 10
    # And the conversation goes on from the right state.
    more = bench.run([*prompt, *plain, *prompt[:7]], 8).tokens
    hybrid_llama.forget_all()
    assert Bench(hybrid_llama).run([*prompt, *plain, *prompt[:7]], 8).tokens == more


def test_guesses_stop_where_they_cost_more_than_they_bring():
    pace = Pace(redo=False)
    pace.record(1, 0.02)
    pace.record(9, 0.02 + 8 * 0.02)  # a batch is no cheaper than its tokens one by one
    assert pace.best_length(0.9, 24) == 0
    drafter = Drafter(pace)
    tokens = [1, 2, 3, 4, 5, 6, 7, 8] * 4
    assert drafter.propose(tokens, 24) == []


def test_the_length_follows_how_often_guesses_are_right():
    pace = fast_pace()
    assert pace.best_length(0.95, 24) > pace.best_length(0.5, 24) >= 2
    assert pace.best_length(0.95, 3) == 2


def test_the_place_with_the_longest_agreement_is_followed():
    drafter = Drafter(fast_pace())
    tokens = [9, 1, 2, 3, 4, 50, 51, 7, 1, 2, 3, 4, 60, 61, 9, 1, 2, 3, 4]
    assert drafter.propose(tokens, 2) == [50, 51]


def test_a_text_that_is_expected_is_guessed_from():
    drafter = Drafter(fast_pace(), [[1, 2, 3, 4, 5, 6, 7]])
    assert drafter.propose([100, 1, 2, 3, 4], 2) == [5, 6]


def test_functions_that_look_alike_are_not_confused():
    """Most files repeat their own phrases; only what was copied before tells which comes next."""
    lines = [[1, 2, 3, 4, 5, 100 + number, 6, 7, 8, 9] for number in range(60)]
    source = [token for line in lines for token in line]
    written = list(source)
    written[250] = 99  # a changed line
    pace = Pace(redo=False)
    pace.record(1, 0.030)
    pace.record(9, 0.070)
    drafter = Drafter(pace)
    tokens = [*source, 50, 51, *written[:10]]
    done, batches = 10, 0
    while done < len(written):
        guess = drafter.propose(tokens, min(24, len(written) - done - 1))
        right = 0
        while right < len(guess) and guess[right] == written[done + right]:
            right += 1
        drafter.judge(len(guess), right)
        tokens += written[done : done + right + 1]
        done += right + 1
        batches += 1
    assert batches < len(written) / 8
    assert drafter.accepted > 0.9 * drafter.drafted
