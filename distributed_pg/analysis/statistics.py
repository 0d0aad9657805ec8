"""What several seeds show together: interquartile means and their confidence intervals."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

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
    cut = len(values) // 4
    return np.asarray(np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0))


def confidence_interval(values: Array) -> tuple[Array, Array]:
    """The 95% confidence interval of :func:`interquartile_mean`, by the percentile bootstrap.

    Seeds are drawn with replacement; the same values always give the same interval.

    Args:
        values: one row per seed, (seeds, ...) with at least one.

    Returns:
        The lower and the upper ends, (...) each; equal with one seed.
    """
    seeds, shape = len(values), values.shape[1:]
    drawn = np.random.default_rng(0).integers(seeds, size=(_RESAMPLES, seeds))
    columns = np.ascontiguousarray(values.reshape(seeds, -1).T)
    ends = [_percentiles(column[drawn]) for column in columns]
    low, high = np.reshape(np.transpose(ends), (2, *shape))
    return low, high


def _percentiles(resamples: Array) -> tuple[float, float]:
    """The ends of the interval, from resamples of one quantity, (resamples, seeds).

    As with :func:`interquartile_mean`, but ten times as fast on such rows.
    """
    cut = resamples.shape[1] // 4
    resamples.sort(axis=1)
    means = resamples[:, cut : resamples.shape[1] - cut].sum(axis=1)
    means /= resamples.shape[1] - 2 * cut
    means.sort()
    tail = (1.0 - _CONFIDENCE) / 2
    ends = np.interp((tail, 1.0 - tail), np.linspace(0.0, 1.0, len(means)), means)
    return float(ends[0]), float(ends[1])
