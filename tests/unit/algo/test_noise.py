"""Noise that samples actions, and its shifts from rally to rally."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_pg.algo.noise import Noise, choose
from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rollout import TRAINING, begin_episode, episode_seed, play
from distributed_pg.envs.pong import PongEnv


def noise_of(actions: int, exploration: float) -> Noise:
    return Noise.of(episode_seed(0, 0, TRAINING), actions, exploration)


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
    noise = noise_of(len(names), exploration=0.0)
    draws = 20_000
    counts = np.bincount([choose(outputs, next(noise)) for _ in range(draws)])
    deviation = np.sqrt(draws * expected * (1 - expected))
    assert np.all(np.abs(counts - draws * expected) < 4 * deviation)


@pytest.mark.parametrize("actions", [2, 4])
def test_a_shift_stays_for_a_rally(actions: int) -> None:
    """What exploration adds to the noise of the steps, rally by rally."""
    steps, shifted = noise_of(actions, exploration=0.0), noise_of(actions, exploration=1.5)
    shifts = []
    for _ in range(4000):
        added = np.array([np.subtract(next(shifted), next(steps)) for _ in range(3)])
        np.testing.assert_allclose(added, np.broadcast_to(added[0], added.shape), atol=1e-12)
        shifts.append(added[0])
        steps.next_rally()
        shifted.next_rally()
    logits, last = np.array(shifts)[:, :-1], np.array(shifts)[:, -1]
    assert not last.any()  # its logit is fixed
    assert abs(logits.mean()) < 4 * 1.5 / np.sqrt(logits.size)
    assert abs(logits.std() - 1.5) < 4 * 1.5 / np.sqrt(2 * logits.size)
    following = [float((one * other).mean()) for one, other in pairwise(logits)]
    assert abs(np.mean(following)) < 4 * 1.5**2 / np.sqrt(logits.size)


def test_without_noise_the_most_probable_action_is_chosen() -> None:
    noise = Noise.none(3)
    for _ in range(3):
        assert choose(np.array([0.1, 0.2, 9.0], np.float32), next(noise)) == 1
        noise.next_rally()


def test_a_game_changes_its_shift_with_every_point() -> None:
    env, policy = PongEnv(frame_limit=4000), Policy.init(0, 6400, 20, 2)
    strong = begin_episode(env, episode_seed(3, 0, TRAINING), exploration=1e6)
    game = play(env, policy, strong)
    points = [step + 1 for step, reward in enumerate(game.rewards) if reward]
    rallies = np.split(np.array(game.actions), points)
    assert len(points) > 5
    assert all(len(set(rally.tolist())) <= 1 for rally in rallies)  # it drowns all other noise
    assert {int(rally[0]) for rally in rallies if len(rally)} == {0, 1}
    # The gradient is that of the policy without the shift.
    assert np.abs(game.outputs[:, 0]).max() < 100.0
