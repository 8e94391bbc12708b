"""A model whose state cannot be cut: going back must cost nothing and change nothing.

Users of Qwen3.5 complain most that each turn evaluates the whole conversation again.
"""

import numpy as np

from tests.stubs.bench import Bench


def words(bench, count, seed):
    random = np.random.default_rng(seed)
    return [int(token) for token in random.integers(1000, 100_000, count)]


def test_the_state_really_cannot_be_cut(hybrid, hybrid_llama):
    """Otherwise these tests would prove nothing."""
    hybrid.run(words(hybrid, 200, 1))
    assert hybrid_llama.recurrent
    assert not hybrid_llama.forget(0, 150)


def test_logits_after_going_back_equal_those_of_a_full_evaluation(hybrid, hybrid_llama):
    base, tail, other = (words(hybrid, n, i) for i, n in enumerate((256, 40, 40)))
    hybrid.run(base + tail, marks=(256,))
    again = hybrid.run(base + other, marks=(256,))
    assert again.cached == 256
    restored = hybrid.last_logits
    hybrid_llama.forget_all()
    fresh = Bench(hybrid_llama)
    assert fresh.run(base + other, marks=(256,)).cached == 0
    assert np.array_equal(fresh.last_logits, restored)
    assert np.ptp(restored) > 1


def test_the_same_prompt_again_is_not_evaluated_at_all(hybrid):
    prompt = words(hybrid, 100, 2)
    first = hybrid.run(prompt, 10)
    before = hybrid.scheduler.counters.evaluated
    second = hybrid.run(prompt, 10)
    assert second.cached == 100
    assert second.tokens == first.tokens
    assert hybrid.scheduler.counters.evaluated - before == 10


def test_twelve_turns_with_edits_forks_and_a_rewind_evaluate_no_token_twice(hybrid, hybrid_llama):
    counters = hybrid.scheduler.counters
    new = 0
    history = words(hybrid, 300, 10)
    ends = []
    answers = []
    for turn in range(12):
        prompt = history + words(hybrid, 30, 20 + turn)
        new += len(prompt) - len(history) + (300 if turn == 0 else 0)
        if turn == 5:  # a side question that the main line never sees
            side = hybrid.run(history + words(hybrid, 25, 90), 15)
            new += 25 + 15
            assert side.cached == len(history)
        if turn == 7:  # the user takes the last message back and words it anew
            hybrid.run(history + words(hybrid, 20, 91), 10)
            new += 20 + 10
        if turn == 9:  # back to where turn 4 had ended
            history = ends[4]
            prompt = history + words(hybrid, 30, 92)
        answer = hybrid.run(prompt, 20)
        new += 20
        history = prompt + answer.tokens
        ends.append(history)
        answers.append((prompt, answer.tokens))
    assert counters.evaluated == new
    for prompt, tokens in answers[::4]:
        hybrid_llama.forget_all()
        assert Bench(hybrid_llama).run(prompt, 20).tokens == tokens


def test_checkpoints_stay_within_their_budget_and_the_useful_ones_remain(hybrid_llama):
    hybrid_llama.forget_all()
    bench = Bench(hybrid_llama, checkpoints=8_000_000)
    store = bench.slots.checkpoints
    history = words(bench, 500, 3)
    for turn in range(12):
        prompt = history + words(bench, 20, 30 + turn)
        history = prompt + bench.run(prompt, 5).tokens
        assert store.size <= 8_000_000
    assert 2 <= len(store.lengths) < 24
    assert min(store.lengths) <= 520  # the way back to the beginning
    assert max(store.lengths) > 700  # and to the last turn


def test_a_long_prompt_leaves_checkpoints_on_its_way(hybrid):
    prompt = words(hybrid, 2500, 4)
    hybrid.run(prompt)
    assert hybrid.run(prompt[:2200] + words(hybrid, 10, 5)).cached == 2048
