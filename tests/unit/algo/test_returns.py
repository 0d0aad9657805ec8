"""Discounting and standardising, against a hand-worked example and the classic loop."""

import dense_reference
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_pg.algo.returns import discounted_returns, normalized

rewards = st.lists(st.sampled_from([-1.0, 0.0, 0.0, 0.0, 1.0]), min_size=1, max_size=60)


def test_by_hand() -> None:
    returns = discounted_returns([0.0, 0.0, -1.0, 0.0, 1.0, 0.0], gamma=0.5)
    assert returns.tolist() == [-0.25, -0.5, -1.0, 0.5, 1.0, 0.0]


def test_integer_rewards_are_discounted_as_real_numbers() -> None:
    assert discounted_returns([0, 0, 1], gamma=0.5).tolist() == [0.25, 0.5, 1.0]


@given(rewards, st.floats(0, 1))
def test_same_as_the_classic_loop(values: list[float], gamma: float) -> None:
    expected = dense_reference.discount(np.array(values), gamma)
    assert discounted_returns(values, gamma) == pytest.approx(expected)


@given(rewards)
def test_standardised_has_mean_0_and_deviation_1_or_is_zero(values: list[float]) -> None:
    result = normalized(discounted_returns(values, 0.99))
    assert np.isfinite(result).all()
    if result.any():
        assert result.mean() == pytest.approx(0.0, abs=1e-9)
        assert result.std() == pytest.approx(1.0)
    else:
        assert len(set(discounted_returns(values, 0.99))) == 1


@pytest.mark.parametrize("constant", [0.0, -1.0, 0.1])
def test_equal_returns_give_zeros_not_nan(constant: float) -> None:
    assert normalized(np.full(7, constant)).tolist() == [0.0] * 7
    assert normalized(np.empty(0)).tolist() == []
