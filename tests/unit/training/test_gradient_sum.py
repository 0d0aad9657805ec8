"""Sums of sparse gradients, against dense ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import PongEnv
from distributed_pg.episode import rollout
from distributed_pg.training.gradient_sum import summed
from distributed_pg.training.rollout_worker import RolloutWorker

INPUTS, HIDDEN, OUTPUTS = 12, 3, 2


@st.composite
def gradients(draw: st.DrawFn) -> Gradient:
    rows = sorted(draw(st.sets(st.integers(0, INPUTS - 1))))
    most = max(1, len(rows))
    kinds = draw(st.lists(st.integers(0, most - 1), min_size=len(rows), max_size=len(rows)))
    distinct, row_index = np.unique(np.array(kinds, np.int32), return_inverse=True)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return Gradient(
        np.array(rows, np.int32),
        row_index.astype(np.int32),
        random.normal(size=(len(distinct), HIDDEN)).astype(np.float32),
        random.normal(size=(HIDDEN, OUTPUTS)).astype(np.float32),
    )


def dense(gradient: Gradient, inputs: int = INPUTS) -> tuple[np.ndarray, np.ndarray]:
    w1 = np.zeros((inputs, gradient.unique_w1_rows.shape[1]), np.float32)
    for row, kind in zip(gradient.rows, gradient.row_index, strict=True):
        w1[row] = gradient.unique_w1_rows[kind]
    return w1, gradient.w2


@given(gradients(), gradients())
def test_a_sum_has_the_bits_of_the_dense_sum(one: Gradient, other: Gradient) -> None:
    total = summed([one, other])
    for got, first, second in zip(dense(total), dense(one), dense(other), strict=True):
        assert got.dtype == np.float32
        assert np.array_equal(got, first + second)
    assert list(total.rows) == sorted({*one.rows, *other.rows})
    assert total.rows.dtype == total.row_index.dtype == np.int32


@given(gradients(), gradients())
def test_rows_equal_in_both_are_stored_once(one: Gradient, other: Gradient) -> None:
    kinds = [dict(zip(g.rows, g.row_index, strict=True)) for g in (one, other)]
    pairs = {tuple(kind.get(row) for kind in kinds) for row in {*one.rows, *other.rows}}
    assert len(summed([one, other]).unique_w1_rows) == len(pairs)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.init(seed=1, inputs=6400, hidden_units=20, actions=2)


def test_a_worker_sums_the_episodes_of_its_task_in_order(policy: Policy) -> None:
    config = TrainConfig(batch_size=6, episodes_per_task=3, hidden_units=20, frame_limit=400)
    stats, gradient = RolloutWorker(config).play(3, policy)
    env = PongEnv(**config.env_settings())
    alone = [rollout(env, policy, config, episode) for episode in (3, 4, 5)]
    assert [s.reward for s in stats] == [result.stats.reward for result in alone]
    assert sum(s.frames for s in stats) == 1200
    total = policy.zeros_like()
    for result in alone:
        result.gradient.add_to(total)
    assert np.array_equal(dense(gradient, 6400)[0], total.w1)
    assert np.array_equal(gradient.w2, total.w2)
    assert sum(s.gradient_bytes for s in stats) == pytest.approx(gradient.nbytes, abs=3)
    assert gradient.nbytes < sum(result.gradient.nbytes for result in alone)
