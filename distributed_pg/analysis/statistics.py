"""What several seeds show together: interquartile means and their confidence intervals."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

Array: TypeAlias = NDArray[np.float64]

_RESAMPLES = 2000
_CONFIDENCE = 0.95


def interquartile_mean(values: Array) -> Array:
    """The mean of the middle half of the values, over the first axis.

    A quarter of the values, rounded down, is left out at each end: a mean that a lucky or unlucky
    seed does not move, and that uses more of the seeds than the median does (Agarwal et al., "Deep
    reinforcement learning at the edge of the statistical precipice", 2021).

    Args:
        values: one row per seed, (seeds, ...) with at least one.

    Returns:
        The means, (...).
    """
    return np.asarray(trim_mean(values, 0.25, axis=0))


def confidence_interval(values: Array) -> tuple[Array, Array]:
    """The 95% confidence interval of :func:`interquartile_mean`, by the percentile bootstrap.

    Seeds are drawn with replacement; the same values always give the same interval.

    Args:
        values: one row per seed, (seeds, ...) with at least one.

    Returns:
        The lower and the upper ends, (...) each; equal with one seed.
    """
    random = np.random.default_rng(0)
    drawn = random.integers(len(values), size=(_RESAMPLES, len(values)))
    means = np.array([interquartile_mean(values[rows]) for rows in drawn])
    tail = (1.0 - _CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1.0 - tail), axis=0)
    return low, high
