"""Actions chosen by logits and noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distributed_pg.algo.noise import choose, gumbel_noise


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-5, 30)), min_size=2, max_size=6))
def test_the_action_chosen_has_the_highest_logit_and_noise(
    pairs: list[tuple[float, float]],
) -> None:
    logits, noise = map(list, zip(*pairs, strict=True))
    outputs = np.array(logits, np.float32)
    expected_return_instead = outputs.copy()
    expected_return_instead[-1] = 1e6
    action = choose(expected_return_instead, noise)
    scores = np.array([*outputs[:-1], 0.0], np.float64) + noise
    assert scores[action] == scores.max()


@pytest.mark.parametrize("repeat_probability", [0.0, 0.9])
@pytest.mark.parametrize("names", [("UP", "DOWN"), ("NOOP", "UP", "DOWN", "FIRE")])
def test_chosen_actions_have_the_softmax_s_frequencies(
    names: tuple[str, ...], repeat_probability: float
) -> None:
    outputs = np.array([1.5, -0.5, 0.3, 7.0][-len(names) :], np.float32)
    weights = np.exp([*outputs[:-1].astype(float), 0.0])
    expected = weights / weights.sum()
    noise = gumbel_noise(np.random.default_rng(0), len(names), repeat_probability)
    draws = 20_000
    counts = np.bincount([choose(outputs, next(noise)) for _ in range(draws)])
    # Of a chain whose steps are equal with probability r, draws count as (1 - r) / (1 + r) as many.
    weight = (1 + repeat_probability) / (1 - repeat_probability)
    deviation = np.sqrt(weight * draws * expected * (1 - expected))
    assert np.all(np.abs(counts - draws * expected) < 4 * deviation)


def rows(seed: int, repeat_probability: float, steps: int) -> NDArray[np.float64]:
    noise = gumbel_noise(np.random.default_rng(seed), 2, repeat_probability)
    return np.array([next(noise) for _ in range(steps)])


def test_noise_that_is_not_repeated_is_plain_gumbel_noise() -> None:
    plain = np.random.default_rng(3).gumbel(size=2 * 1024)
    assert np.array_equal(rows(3, 0.0, 1024).ravel(), plain)
    assert len(np.unique(rows(3, 0.0, 3000))) == 2 * 3000


@given(st.integers(0, 2**32), st.floats(0.01, 0.99))
def test_steps_repeat_the_noise_of_the_step_before_with_the_probability_given(
    seed: int, probability: float
) -> None:
    steps = 4000  # several of the blocks that are drawn at a time
    noise = rows(seed, probability, steps)
    repeated = (noise[1:] == noise[:-1]).all(axis=1)
    deviation = np.sqrt(steps * probability * (1 - probability))
    assert abs(repeated.sum() - steps * probability) < 6 * deviation + 1
    # Between repeats all is new, and both numbers of a step go together.
    new = noise[np.concatenate([[True], ~repeated])]
    assert len(np.unique(new)) == new.size


def test_repeats_go_on_where_a_block_ends() -> None:
    ends = [1024, 2048, 3072]
    over = [
        [tuple(noise[end - 1]) == tuple(noise[end]) for end in ends]
        for noise in (rows(seed, 0.9, 3073) for seed in range(40))
    ]
    assert 0.75 < np.mean(over) < 1.0
