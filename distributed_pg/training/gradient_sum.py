"""The sum of the gradients of a task's episodes, as sparse as they are."""

from collections.abc import Iterable
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Floats


def summed(gradients: Iterable[Gradient]) -> Gradient:
    """The sum of one or more gradients, added in their order."""
    return reduce(_sum, gradients)


def _sum(one: Gradient, other: Gradient) -> Gradient:
    """The sum of two gradients; pixels with equal rows in both share their row again."""
    rows = np.union1d(one.rows, other.rows)
    others = len(other.unique_w1_rows) + 1
    pairs = _row_numbers(one, rows) * others + _row_numbers(other, rows)
    distinct, row_index = np.unique(pairs, return_inverse=True)
    of_one, of_other = np.divmod(distinct, others)
    return Gradient(
        rows,
        row_index.astype(np.int32),
        _with_zero(one.unique_w1_rows)[of_one] + _with_zero(other.unique_w1_rows)[of_other],
        one.w2 + other.w2,
    )


def _row_numbers(gradient: Gradient, rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """For each of these rows of W1, 1 + its index into ``unique_w1_rows``; 0 if untouched."""
    numbers = np.zeros(len(rows), np.int64)
    numbers[np.searchsorted(rows, gradient.rows)] = gradient.row_index + 1
    return numbers


def _with_zero(rows: Floats) -> Floats:
    """The rows behind a row of zeros."""
    return np.vstack([np.zeros((1, rows.shape[1]), np.float32), rows])
