"""The sparse float32 policy against a dense float64 one, on real episodes."""

import math
import pickle

import numpy as np
import pytest
from dense_reference import Array, forward, gradient
from hypothesis import given
from hypothesis import strategies as st
from trajectories import frames_of

from distributed_pg.algo.gradient import Gradient, backpropagate
from distributed_pg.algo.policy import Policy, action_probabilities
from distributed_pg.algo.rollout import Trajectory, episode_gradient, episode_seed, play_episode
from distributed_pg.config import Baseline, TrainConfig
from distributed_pg.envs.pong import PONG_ACTIONS, PongEnv

ACTION_SETS = {2: ("UP", "DOWN"), 3: ("UP", "DOWN", "NOOP"), 6: tuple(PONG_ACTIONS)}


def dense_inputs(policy: Policy, trajectory: Trajectory) -> Array:
    """The difference frames (T, D), or (T, 2 D) with the current frames behind them."""
    frames = np.zeros((len(trajectory.actions), len(policy.w1)))
    for frame, (pixels, signs) in zip(frames, frames_of(trajectory), strict=True):
        frame[pixels] = signs
    return np.hstack([frames, frames.cumsum(axis=0)]) if policy.sees_current_frame else frames


def dense(w1: np.ndarray, policy: Policy) -> np.ndarray:
    """An array like W1 with a row for each number of an input."""
    return np.concatenate(np.hsplit(w1, w1.shape[1] // len(policy.w2)))


@pytest.fixture(scope="module", params=[(2, False), (3, False), (6, False), (2, True), (3, True)])
def episode(request: pytest.FixtureRequest) -> tuple[Policy, Trajectory]:
    """A policy with A actions and the first points of a real game it played."""
    actions, current_frame = request.param
    env = PongEnv(actions=ACTION_SETS[actions], frame_limit=1000)
    policy = Policy.init(
        seed=1, inputs=6400, hidden_units=60, actions=actions, current_frame=current_frame
    )
    random = np.random.default_rng(1)
    policy.w1[...] *= 8  # away from p = 1/A, where a wrong softmax would not show
    policy.w2[:, -1] = random.normal(0.0, 0.3, 60)  # and expects something
    policy.w1[:, 60:] = random.normal(0.0, 0.02, policy.w1[:, 60:].shape)
    return policy, play_episode(env, policy, episode_seed(0, actions, 0))


def relative_error(ours: np.ndarray, theirs: Array) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def test_probabilities_match_the_dense_reference(episode: tuple[Policy, Trajectory]) -> None:
    policy, trajectory = episode
    w1, w2 = dense(policy.w1, policy).astype(np.float64), policy.w2.astype(np.float64)
    spread, inputs = 0.0, dense_inputs(policy, trajectory)
    for x, probabilities in zip(inputs, trajectory.probabilities, strict=True):
        _, expected = forward(w1, w2, x)
        assert np.max(np.abs(probabilities - expected) / expected) < 1e-5
        spread = max(spread, float(np.ptp(expected)))
    assert spread > 0.05


@pytest.mark.parametrize("baseline", ["mean", "learned"])
def test_gradient_matches_the_dense_reference(
    episode: tuple[Policy, Trajectory], baseline: Baseline
) -> None:
    policy, trajectory = episode
    inputs = dense_inputs(policy, trajectory)
    w1, w2 = dense(policy.w1, policy).astype(np.float64), policy.w2.astype(np.float64)
    actions, rewards = np.array(trajectory.actions), np.array(trajectory.rewards)
    expected_w1, expected_w2 = gradient(
        w1,
        w2,
        inputs,
        actions,
        rewards,
        0.98,
        learned_baseline=baseline == "learned",
    )

    config = TrainConfig(gamma=0.98, baseline=baseline)
    ours = episode_gradient(policy, trajectory, config)
    total = policy.zeros_like()
    ours.add_to(total)
    assert ours.unique_w1_rows.dtype == ours.w2.dtype == np.float32
    for part, expected in zip(
        np.split(dense(total.w1, policy), inputs.shape[1] // 6400),
        np.split(expected_w1, inputs.shape[1] // 6400),
        strict=True,
    ):
        assert relative_error(part, expected) < 1e-4
    assert relative_error(ours.w2, expected_w2) < 1e-4
    assert ours.w2[:, -1].any() == (baseline == "learned")
    # Only the rows of pixels that ever changed are there, each once,
    frames = inputs[:, :6400]
    assert np.array_equal(ours.rows, np.unique(frames.nonzero()[1]))
    # and pixels that always changed together share their gradient, all others do not.
    _, kind = np.unique(frames[:, ours.rows], axis=1, return_inverse=True)
    pairs = np.unique(np.stack([ours.row_index, kind.ravel()]), axis=1)
    assert pairs.shape[1] == len(ours.unique_w1_rows) == len(set(kind.ravel())) < len(ours.rows)


def test_adding_gradients_sums_them(episode: tuple[Policy, Trajectory]) -> None:
    policy, trajectory = episode
    ours = episode_gradient(policy, trajectory, TrainConfig())
    total = policy.zeros_like()
    ours.add_to(total)
    ours.add_to(total)
    assert np.array_equal(total.w1[ours.rows], 2 * ours.unique_w1_rows[ours.row_index])
    assert np.array_equal(total.w2, 2 * ours.w2)
    untouched = np.setdiff1d(np.arange(6400), ours.rows)
    assert not total.w1[untouched].any()


@pytest.mark.parametrize("actions", [2, 3, 6])
def test_gradient_is_that_of_the_log_probability(actions: int) -> None:
    """Finite differences of sum_t c_t log pi(a_t | x_t) + d_t v(x_t), in float64.

    The weights c and d are arbitrary; v is the value.
    """
    random = np.random.default_rng(actions)
    inputs, hidden_units, steps = 12, 5, 9
    policy = Policy.init(seed=4, inputs=inputs, hidden_units=hidden_units, actions=actions)
    frames = random.integers(-1, 2, (steps, inputs)).astype(np.float64)
    chosen = random.integers(0, actions, steps)
    weights, value_weights = random.standard_normal((2, steps))

    hidden, errors, pixels, signs, starts = [], [], [], [], [0]
    for x, action, weight, value_weight in zip(frames, chosen, weights, value_weights, strict=True):
        position = x.nonzero()[0]
        h, outputs = policy.forward(position, x[position].astype(np.float32))
        error = -action_probabilities(outputs)
        error[action] += 1.0
        hidden.append(h)
        errors.append([*(weight * error[:-1]), value_weight])
        pixels.append(position)
        signs.append(x[position])
        starts.append(starts[-1] + len(position))
    ours = backpropagate(
        policy,
        np.concatenate(pixels),
        np.concatenate(signs).astype(np.float32),
        np.array(starts),
        np.stack(hidden),
        np.array(errors, np.float32),
    )
    dense_w1 = np.zeros((inputs, hidden_units))
    dense_w1[ours.rows] = ours.unique_w1_rows[ours.row_index]

    def objective(w1: Array, w2: Array) -> float:
        return math.fsum(
            weight * math.log(forward(w1, w2, x)[1][action])
            + value_weight * (np.maximum(w1.T @ x, 0.0) @ w2[:, -1])
            for x, action, weight, value_weight in zip(
                frames, chosen, weights, value_weights, strict=True
            )
        )

    w1, w2 = policy.w1.astype(np.float64), policy.w2.astype(np.float64)
    for array, analytic in ((w1, dense_w1), (w2, ours.w2)):
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + 1e-6
            above = objective(w1, w2)
            array[index] = kept - 1e-6
            below = objective(w1, w2)
            array[index] = kept
            assert (above - below) / 2e-6 == pytest.approx(analytic[index], rel=1e-3, abs=1e-4)


def test_first_frame_of_an_episode_gives_every_action_the_same_chance() -> None:
    policy = Policy.init(seed=0, inputs=6400, hidden_units=200, actions=3)
    hidden, outputs = policy.forward(np.empty(0, np.intp), np.empty(0, np.float32))
    assert not hidden.any()
    assert action_probabilities(outputs) == pytest.approx([1 / 3] * 3)


def test_a_policy_crosses_processes_without_a_copy_of_its_arrays() -> None:
    """Ray keeps out-of-band buffers in shared memory, where a worker reads them in place."""
    policy = Policy.init(seed=0, inputs=6400, hidden_units=200, actions=2)
    buffers: list[pickle.PickleBuffer] = []
    in_band = pickle.dumps(policy, protocol=5, buffer_callback=buffers.append)
    assert len(in_band) < 1000
    assert sorted(buffer.raw().nbytes for buffer in buffers) == [200 * 2 * 4, 6400 * 200 * 4]


def test_initial_weights_follow_from_the_seed_and_have_the_classic_scale() -> None:
    one = Policy.init(seed=5, inputs=6400, hidden_units=200, actions=2)
    same = Policy.init(seed=5, inputs=6400, hidden_units=200, actions=2)
    other = Policy.init(seed=6, inputs=6400, hidden_units=200, actions=2)
    assert np.array_equal(one.w1, same.w1)
    assert not np.array_equal(one.w1, other.w1)
    assert one.w1.std() == pytest.approx(1 / math.sqrt(6400), rel=0.01)
    assert one.w2[:, :-1].std() == pytest.approx(1 / math.sqrt(200), rel=0.2)
    assert not one.w2[:, -1].any()


logits = st.lists(st.floats(-800, 800), min_size=2, max_size=6)


@given(logits)
def test_probabilities_are_a_distribution_and_do_not_overflow(values: list[float]) -> None:
    probabilities = action_probabilities(np.array(values, np.float32))
    assert probabilities.shape == (len(values),)
    assert math.fsum(probabilities) == pytest.approx(1.0)
    assert all(0.0 <= p <= 1.0 for p in probabilities)
    order = np.argsort([*values[:-1], 0.0], kind="stable")  # the last is the value
    assert np.all(np.diff(probabilities[order]) >= 0)


@given(st.floats(-30, 30, width=32), st.floats(-30, 30, width=32))
def test_two_actions_are_a_sigmoid(logit: float, expected_return: float) -> None:
    outputs = np.array([[logit, expected_return], [0.0, 0.0]], np.float32)
    first, second = action_probabilities(outputs)
    assert first[0] == pytest.approx(1 / (1 + math.exp(-logit)))
    assert second.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("rows", "hidden_units"), [(0, 200), (1, 200), (3000, 200), (2, 300_000)])
def test_a_gradient_travels_in_small_pieces_and_arrives_whole(rows: int, hidden_units: int) -> None:
    random = np.random.default_rng(rows)
    sent = Gradient(
        np.arange(rows, dtype=np.int32),
        random.permutation(rows).astype(np.int32),
        random.standard_normal((rows, hidden_units), np.float32),
        random.standard_normal((hidden_units, 1), np.float32),
    )
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(sent, protocol=5, buffer_callback=buffers.append)
    sizes = [buffer.raw().nbytes for buffer in buffers]
    assert sum(sizes) == sent.nbytes
    assert len(text) < 10_000
    if hidden_units * 4 < 2**20:
        assert max(sizes) < 2**20
    arrived = pickle.loads(text, buffers=buffers)  # noqa: S301
    assert arrived.rows.tobytes() == sent.rows.tobytes()
    assert arrived.row_index.tobytes() == sent.row_index.tobytes()
    assert arrived.unique_w1_rows.tobytes() == sent.unique_w1_rows.tobytes()
    assert arrived.w2.tobytes() == sent.w2.tobytes()
    assert arrived.unique_w1_rows.shape == (rows, hidden_units)
