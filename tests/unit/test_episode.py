"""An episode and its gradient as one result."""

import math
from dataclasses import replace

import numpy as np
import pytest
from trajectories import frames_of

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rollout import (
    _BLOCK,
    EVALUATION,
    TRAINING,
    Trajectory,
    episode_seed,
    play_episode,
)
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import PongEnv
from distributed_pg.episode import EpisodeResult, entropy, evaluate_episode, rollout
from distributed_pg.training.rollout_worker import RolloutWorker

CONFIG = TrainConfig()


@pytest.fixture(scope="module")
def short() -> PongEnv:
    """A game cut off after some points."""
    return PongEnv(frame_limit=1200)


@pytest.fixture(scope="module")
def game(pong: PongEnv, policy: Policy) -> Trajectory:
    """The first game of a run, whole."""
    return play_episode(pong, policy, episode_seed(0, 0, TRAINING))


def played(pong: PongEnv, policy: Policy, seed: int, episode: int) -> EpisodeResult:
    return rollout(pong, policy, TrainConfig(seed=seed), episode)


def bits(result: EpisodeResult) -> tuple[bytes, ...]:
    gradient = result.gradient
    arrays = (gradient.rows, gradient.row_index, gradient.unique_w1_rows, gradient.w2)
    return tuple(array.tobytes() for array in arrays)


def test_a_result_is_a_function_of_weights_seed_and_episode(short: PongEnv, policy: Policy) -> None:
    first = played(short, policy, seed=7, episode=3)
    assert first.gradient.w2.any()
    played(short, policy, seed=7, episode=4)
    again = played(PongEnv(frame_limit=1200), policy.copy(), seed=7, episode=3)
    assert bits(again) == bits(first)
    assert again.stats.reward == first.stats.reward
    for seed, episode in ((7, 4), (8, 3)):
        assert bits(played(short, policy, seed, episode)) != bits(first)


def test_stats_of_a_whole_game(pong: PongEnv, policy: Policy) -> None:
    persistence = CONFIG.repeat_noise_probability
    game = play_episode(pong, policy, episode_seed(0, 0, TRAINING), repeat_noise=persistence)
    stats = played(pong, policy, seed=0, episode=0).stats
    assert stats.reward == sum(game.rewards)
    assert -21 <= stats.reward <= 21
    assert max(game.rewards.count(1.0), game.rewards.count(-1.0)) == 21
    assert stats.points_won == game.rewards.count(1.0)
    assert stats.points_lost == game.rewards.count(-1.0)
    pairs = game.probabilities.tolist()
    entropies = [-sum(p * math.log(p) for p in pair) for pair in pairs]
    assert stats.entropy == pytest.approx(sum(entropies) / stats.steps)
    assert stats.steps == len(game.rewards)
    # The last step may be cut short by the end of the game.
    assert 4 * (stats.steps - 1) < stats.frames <= 4 * stats.steps
    assert 0 < stats.emulator_seconds < stats.seconds


def test_entropy_by_hand() -> None:
    assert entropy(np.full((5, 4), 0.25)) == pytest.approx([math.log(4)] * 5)
    assert entropy(np.array([[1.0, 0.0], [0.5, 0.5]])) == pytest.approx([0.0, math.log(2)])


def test_a_truncated_game_without_a_point_has_a_zero_gradient(policy: Policy) -> None:
    result = rollout(PongEnv(frame_limit=80), policy, CONFIG, episode=0)
    assert result.stats.frames == 80
    assert result.stats.reward == 0.0
    assert len(result.gradient.rows) > 0
    assert not result.gradient.unique_w1_rows.any()
    assert not result.gradient.w2.any()


def test_a_game_of_one_step_has_a_zero_gradient(policy: Policy) -> None:
    result = rollout(PongEnv(frame_limit=1), policy, CONFIG, episode=0)
    assert result.stats.steps == 1
    assert len(result.gradient.rows) == 0
    assert result.gradient.unique_w1_rows.shape == (0, 200)
    assert not result.gradient.w2.any()


def test_training_and_evaluation_never_share_random_numbers() -> None:
    one = episode_seed(5, 9, TRAINING).generate_state(8)
    other = episode_seed(5, 9, EVALUATION).generate_state(8)
    assert not np.array_equal(one, other)


def test_greedy_takes_the_most_probable_action(short: PongEnv, policy: Policy) -> None:
    trajectory = play_episode(short, policy, episode_seed(0, 0, EVALUATION), greedy=True)
    assert trajectory.actions == trajectory.probabilities.argmax(axis=1).tolist()
    sampled = play_episode(short, policy, episode_seed(0, 0, EVALUATION))
    assert sampled.actions != sampled.probabilities.argmax(axis=1).tolist()


def test_a_game_longer_than_the_room_made_at_first(policy: Policy, game: Trajectory) -> None:
    assert len(game.actions) > _BLOCK
    assert game.hidden.shape == (len(game.actions), 200)
    for (pixels, signs), hidden in zip(frames_of(game), game.hidden, strict=True):
        assert np.array_equal(policy.forward(pixels, signs)[0], hidden)


def test_sampled_actions_follow_the_probabilities(game: Trajectory) -> None:
    p_up = game.probabilities[:, 0]
    deviation = np.sqrt((p_up * (1 - p_up)).sum())
    assert abs(game.actions.count(0) - p_up.sum()) < 4 * deviation


def test_evaluation_plays_the_game_of_its_seed(short: PongEnv, policy: Policy) -> None:
    first = evaluate_episode(short, policy, seed=0, episode=1, greedy=False)
    again = evaluate_episode(short, policy, seed=0, episode=1, greedy=False)
    other = evaluate_episode(short, policy, seed=1, episode=1, greedy=False)
    assert (first.reward, first.entropy) == (again.reward, again.entropy)
    assert first.entropy != other.entropy


def test_a_worker_plays_the_episode_of_its_ticket_whatever_it_played_before(policy: Policy) -> None:
    config = replace(CONFIG, frame_limit=800)
    env, worker = PongEnv(**config.env_settings()), RolloutWorker(config)
    for episode in (2, 0, 1, 2):
        (stats,), gradient = worker.play(episode, policy)
        assert bits(EpisodeResult(stats, gradient)) == bits(rollout(env, policy, config, episode))
