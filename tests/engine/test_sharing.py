"""Several conversations in one context: nobody waits for long, nobody reads another's words."""

import random

import pytest

from qwenterm.core.errors import ContextFullError
from qwenterm.engine.generate import CancelledError
from qwenterm.engine.llama import Llama, LoadParameters
from tests.engine.test_checkpoints import words
from tests.stubs.bench import Bench


def alone(llama, prompt, count):
    llama.forget_all()
    tokens = Bench(llama).run(prompt, count).tokens
    llama.forget_all()
    return tokens


def test_two_answers_at_once_are_those_of_one_after_the_other(hybrid_llama):
    bench = Bench(hybrid_llama)
    prompts = [words(bench, 150, seed) for seed in (1, 2, 3)]
    expected = [alone(hybrid_llama, prompt, 30) for prompt in prompts]
    bench = Bench(hybrid_llama)
    jobs = [bench.submit(prompt, 30) for prompt in prompts]
    bench.finish()
    assert [job.tokens for job in jobs] == expected


def test_a_long_prompt_does_not_stop_who_is_answering(hybrid):
    answering = hybrid.submit(words(hybrid, 50, 1), 40)
    while not answering.tokens:
        hybrid.scheduler.step()
    reading = hybrid.submit(words(hybrid, 1000, 2))
    steps = 0
    while reading.processed < 1000:
        before = len(answering.tokens)
        hybrid.scheduler.step()
        steps += 1
        assert answering.ended or len(answering.tokens) == before + 1
    assert steps > 10
    hybrid.finish()


def test_the_same_beginning_is_evaluated_once_for_several(hybrid):
    prompt = words(hybrid, 600, 5)
    jobs = [hybrid.submit(prompt, 5) for _ in range(3)]
    hybrid.finish()
    assert hybrid.scheduler.counters.evaluated == 600 + 3 * 5
    assert jobs[0].tokens == jobs[1].tokens == jobs[2].tokens


def test_more_requests_than_sequences_are_served_in_turn(hybrid):
    jobs = [hybrid.submit(words(hybrid, 40, seed), 5) for seed in range(9)]
    hybrid.finish()
    assert all(job.ended and job.error is None for job in jobs)


def test_an_idle_conversation_comes_back_from_memory(hybrid, hybrid_llama):
    prompt = words(hybrid, 300, 7)
    first = hybrid.run(prompt, 10)
    for seed in range(20, 26):  # more than there are sequences
        hybrid.run(words(hybrid, 200, seed), 3)
    assert hybrid.slots.parking.size > 0
    history = [*prompt, *first.tokens, *words(hybrid, 9, 8)]
    again = hybrid.run(history, 10)
    assert again.cached == 310
    assert again.tokens == alone(hybrid_llama, history, 10)


def test_a_full_context_lets_idle_conversations_go_first(tiny_model):
    llama = Llama(tiny_model, LoadParameters(n_ctx=1024, batch=128), lambda _fraction: True)
    bench = Bench(llama)
    prompts = [[1000 + seed] * 400 for seed in range(4)]
    for prompt in prompts:
        bench.run(prompt, 5)
    # Two that fill the context together: the younger one waits outside meanwhile.
    jobs = [bench.submit([2000 + seed, 7, 8, 9] * 140, 60) for seed in range(2)]
    bench.finish()
    assert [job.error for job in jobs] == [None, None]
    with pytest.raises(ContextFullError):
        bench.run([3000] * 1000, 100)
    llama.close()


def test_two_hundred_cancels_leave_no_trace(tiny_model):
    """What a cancelled answer left behind would be read as if it had been said."""
    llama = Llama(tiny_model, LoadParameters(n_ctx=2048, batch=64), lambda _fraction: True)
    bench = Bench(llama)
    dice = random.Random(1)
    text = bench.tokens("The quick brown fox jumps over the lazy dog and runs away. " * 30)
    conversations = [text[start : start + 120] for start in (0, 13, 26)]
    for number in range(200):
        prompt = conversations[number % 3] + text[: dice.randrange(1, 60)]
        job = bench.submit(prompt, 30, draft=True)
        for _ in range(dice.randrange(0, 12)):
            bench.scheduler.step()
        job.cancelled = True
        bench.finish()
        assert job.ended
        assert job.error is None or isinstance(job.error, CancelledError)
    assert not any(slot.busy for slot in bench.slots.slots)
    prompt = conversations[0] + text[:50]
    after = bench.run(prompt, 20)
    assert after.cached > 100
    assert after.tokens == alone(llama, prompt, 20)
    llama.close()


def test_a_long_idle_conversation_makes_way_and_comes_back(hybrid_llama):
    """Each token passes over all that is in the context: others would slow down who is there."""
    bench = Bench(hybrid_llama)
    main, side = words(bench, 1500, 5), words(bench, 200, 6)
    bench.run(main, 4)
    bench.run(side, 4)
    assert bench.slots.parking.size > 0
    assert sum(len(slot.tokens) for slot in bench.slots.slots) < 300
    back = bench.run([*main, *words(bench, 20, 7)], 4)
    assert back.cached >= len(main) - 1


def test_nothing_makes_way_where_no_memory_is_set_aside(hybrid_llama):
    """Slower is better than lost."""
    bench = Bench(hybrid_llama, parking=0)
    main, side = words(bench, 1500, 5), words(bench, 200, 6)
    bench.run(main, 4)
    bench.run(side, 4)
    back = bench.run([*main, *words(bench, 20, 7)], 4)
    assert back.cached >= len(main) - 1
