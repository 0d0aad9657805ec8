"""What ``import distributed_pg`` offers, used as a script or a notebook would."""

import copy
import pickle

import gymnasium
import numpy as np
import pytest
from command import python

import distributed_pg as pg
from distributed_pg.algo.rollout import EVALUATION, begin_episode, episode_seed, play_episode

PRETRAINED = pg.load_policy("pretrained")


def test_importing_the_package_loads_neither_numpy_nor_ray() -> None:
    heavy = "{'numpy', 'ray', 'gymnasium', 'scipy'}"
    assert python(f"import sys, distributed_pg; print({heavy} & sys.modules.keys())") == "set()"


@pytest.mark.parametrize("name", pg.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(pg, name) is not None
    assert name in dir(pg)


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = pg.trian


def test_predict_plays_as_a_game_is_played() -> None:
    """Step by step, from dense observations: the actions of an evaluation."""
    config, policy = PRETRAINED.config, PRETRAINED.policy
    env = pg.PongEnv(**config.env_settings() | {"frame_limit": 1200})
    expected = play_episode(env, policy, episode_seed(5, 0, EVALUATION), greedy=True).actions
    begin_episode(env, episode_seed(5, 0, EVALUATION))
    observation, done, actions = np.zeros(env.observation_space.shape or (), np.int8), False, []
    while not done:
        action, state = PRETRAINED.predict(observation, deterministic=True)
        assert state is None
        actions.append(int(action))
        observation, _, terminated, truncated, _ = env.step(int(action))
        done = terminated or truncated
    assert actions == expected
    assert len(set(actions)) > 1


def test_predict_samples_the_policy() -> None:
    rows, columns = PRETRAINED.policy.w1.shape[0] // 80, 80
    frame = np.zeros((rows, columns), np.int8)
    frame[rows // 2, 20:40] = 1
    hidden = np.maximum(frame.reshape(-1) @ PRETRAINED.policy.w1.astype(np.float64), 0.0)
    logits = hidden @ PRETRAINED.policy.w2
    logits[-1] = 0.0
    expected = np.exp(logits) / np.exp(logits).sum()
    actions, _ = PRETRAINED.predict(np.repeat(frame[None], 4000, axis=0))
    assert isinstance(actions, np.ndarray)
    frequencies = np.bincount(actions, minlength=len(expected)) / len(actions)
    assert np.abs(frequencies - expected).max() < 0.04
    most_probable, _ = PRETRAINED.predict(frame, deterministic=True)
    assert most_probable == expected.argmax()


def test_predict_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match=r"^observation: has the shape \(3,\); allowed: \("):
        PRETRAINED.predict(np.zeros(3, np.int8))


def test_gymnasium_makes_the_environment_by_its_id() -> None:
    for order in ("gymnasium, distributed_pg", "distributed_pg, gymnasium"):
        code = (
            f"import {order}; env = gymnasium.make('distributed_pg/Pong-v0', frame_skip=2);"
            "print(env.reset(seed=1)[0].shape, env.unwrapped, gymnasium.__spec__.name)"
        )
        assert python(code) == "(80, 80) <PongEnv<distributed_pg/Pong-v0>> gymnasium"
    envs = gymnasium.make_vec("distributed_pg/Pong-v0", num_envs=2)
    envs.reset(seed=3)
    observations, rewards, *_ = envs.step(np.array([0, 1]))
    assert observations.shape == (2, 80, 80)
    assert rewards.shape == (2,)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_environment_says_why_it_cannot_be_copied(copied: object) -> None:
    assert callable(copied)
    with pytest.raises(TypeError, match="a PongEnv cannot be copied or pickled, as the emulator"):
        copied(pg.PongEnv())


def test_a_bad_setting_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"^batch_size: "):
        pg.TrainConfig(batch_size=0)
