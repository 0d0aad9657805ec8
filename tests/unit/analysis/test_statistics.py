"""Interquartile means and their confidence intervals."""

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_pg.analysis.statistics import confidence_interval, interquartile_mean


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([3], 3),
        ([1, 5], 3),
        ([0, 10, 2, -100], 1),  # of 0 and 2
        ([100, 1, 3, 2, -100], 2),  # of 1, 2, 3
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 99], 5.5),  # of 3 to 8
    ],
)
def test_the_mean_of_the_middle_half(values: list[float], mean: float) -> None:
    assert interquartile_mean(np.array(values, float)) == pytest.approx(mean)


def test_each_column_has_its_own() -> None:
    values = np.array([[0, 1], [10, 5], [2, 3], [-100, 3]], float)
    assert interquartile_mean(values).tolist() == [1, 3]
    low, high = confidence_interval(values)
    assert low.shape == high.shape == (2,)
    for column in range(2):
        assert confidence_interval(values[:, column]) == (low[column], high[column])


def test_one_seed_has_no_spread() -> None:
    low, high = confidence_interval(np.array([[1.5, -2.0]]))
    assert low.tolist() == high.tolist() == [1.5, -2.0]


@given(st.lists(st.floats(-21, 21), min_size=1, max_size=12))
def test_the_mean_is_within_and_the_interval_always_the_same(values: list[float]) -> None:
    array = np.array(values)
    before = array.copy()
    low, high = confidence_interval(array)
    assert low <= interquartile_mean(array) + 1e-9
    assert high >= interquartile_mean(array) - 1e-9
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert confidence_interval(array) == (low, high)
    assert (array == before).all()


@pytest.mark.parametrize("seeds", [5, 10, 30])
def test_the_interval_is_that_of_scipys_bootstrap(seeds: int) -> None:
    from scipy.stats import bootstrap, trim_mean  # a second to import, for this test alone

    values = np.random.default_rng(seeds).normal(size=seeds)
    expected = bootstrap(
        (values,),
        cast("Any", lambda sample, axis: trim_mean(sample, 0.25, axis=axis)),
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    low, high = confidence_interval(values)
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.06 * width)
    assert high == pytest.approx(expected.high, abs=0.06 * width)
