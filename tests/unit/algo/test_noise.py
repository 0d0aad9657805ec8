"""Actions chosen by logits and noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("names", [("UP", "DOWN"), ("NOOP", "UP", "DOWN", "FIRE")])
def test_chosen_actions_have_the_softmax_s_frequencies(names: tuple[str, ...]) -> None:
    outputs = np.array([1.5, -0.5, 0.3, 7.0][-len(names) :], np.float32)
    weights = np.exp([*outputs[:-1].astype(float), 0.0])
    expected = weights / weights.sum()
    noise = gumbel_noise(np.random.default_rng(0), len(names))
    draws = 20_000
    counts = np.bincount([choose(outputs, next(noise)) for _ in range(draws)])
    deviation = np.sqrt(draws * expected * (1 - expected))
    assert np.all(np.abs(counts - draws * expected) < 4 * deviation)
