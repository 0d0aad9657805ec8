"""The gradient of an episode: only the rows of W1 that it touches, and equal ones once."""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from distributed_pg.algo.policy import Floats, Policy

_BLOCK_BYTES = 2**20
_ROWS_TOGETHER = 128
"""Rows that are added at a time, so that they stay in the processor's cache meanwhile."""


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient of one episode, without the rows of W1 whose pixel never changed.

    Row d of W1 gets the sum, over the steps at which pixel d changed, of its sign times the
    gradient of the hidden units. So pixels that changed at the same steps with the same signs, as
    those of the ball do, have the same gradient. It is there once, so that less has to be sent.

    An ascent direction: adding a small multiple of it to the weights raises the likelihood of the
    actions that were followed by higher returns.
    """

    rows: NDArray[np.int32]
    """Indices of the touched rows of W1, ascending, (n,)."""
    row_index: NDArray[np.int32]
    """For each of those rows, which row of ``unique_w1_rows`` is its gradient, (n,)."""
    unique_w1_rows: Floats
    """The distinct gradients of rows of W1, (m, H) with m <= n."""
    w2: Floats
    """Gradient of W2, (H, A)."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle W1's rows in blocks below 1 MiB.

        Ray copies a larger array with six threads, and on a machine whose cores are all busy these
        wait for each other longer than the copy takes.
        """
        unique = self.unique_w1_rows
        rows = max(1, (_BLOCK_BYTES - 1) // (unique.itemsize * unique.shape[1]))
        blocks = [unique[start : start + rows] for start in range(0, max(1, len(unique)), rows)]
        return _joined, (self.rows, self.row_index, blocks, self.w2)

    @property
    def nbytes(self) -> int:
        """Size of the arrays, bytes."""
        return sum(a.nbytes for a in (self.rows, self.row_index, self.unique_w1_rows, self.w2))

    @property
    def is_finite(self) -> bool:
        """Whether there is no NaN or infinity in it."""
        arrays = (self.unique_w1_rows, self.w2)
        return all(math.isfinite(float(np.vdot(array, array))) for array in arrays)

    def add_to(self, total: Policy) -> None:
        """Add this gradient to ``total``, a policy-shaped sum, in place.

        Float addition is not associative: the sum has the same bits only if gradients are added in
        the same order, so the learner adds them in the order of the episodes.
        """
        for start in range(0, len(self.rows), _ROWS_TOGETHER):
            part = slice(start, start + _ROWS_TOGETHER)
            added = self.unique_w1_rows.take(self.row_index[part], axis=0)
            added += total.w1.take(self.rows[part], axis=0)
            total.w1[self.rows[part]] = added
        total.w2[...] += self.w2


def _joined(
    rows: NDArray[np.int32], row_index: NDArray[np.int32], blocks: list[Floats], w2: Floats
) -> Gradient:
    unique_w1_rows = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    return Gradient(rows, row_index, unique_w1_rows, w2)


def backpropagate(
    policy: Policy,
    pixels: NDArray[np.intp],
    signs: Floats,
    frame_starts: NDArray[np.intp],
    hidden: Floats,
    output_gradients: Floats,
) -> Gradient:
    """Backpropagate an episode of T steps.

    The n changed pixels of all frames stand one after another; those of step t are
    ``pixels[frame_starts[t]:frame_starts[t + 1]]``.

    Args:
        policy: what played.
        pixels: positions in the flattened frame, (n,).
        signs: the frames at those positions, -1 or 1, (n,).
        frame_starts: (T + 1,), from 0 to n.
        hidden: what :meth:`Policy.forward` returned at each step, (T, H).
        output_gradients: gradient of the objective with respect to the outputs, (T, A).
    """
    hidden_gradients = np.dot(output_gradients, policy.w2.T)
    hidden_gradients *= hidden > 0.0

    touched = np.zeros(len(policy.w1), np.bool_)
    touched[pixels] = True
    rows = touched.nonzero()[0]
    row_of_pixel = np.cumsum(touched) - 1
    # Sparse, steps by touched pixels. SciPy adds step after step, so the order of sums is fixed.
    frames = csr_array((signs, row_of_pixel[pixels], frame_starts), shape=(len(hidden), len(rows)))
    w1_rows = frames.T @ hidden_gradients
    first, row_index = _different_columns(frames)
    return Gradient(
        rows.astype(np.int32),
        row_index,
        w1_rows.take(first, axis=0),
        np.dot(hidden.T, output_gradients),
    )


def _different_columns(frames: csr_array) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """One of each kind of equal columns, (m,), and of which kind each column is, (n,).

    All entries are -1 or 1. A column is known by one number, its product, modulo 2^64, with a
    vector of random numbers, the same ones every time: those of two columns that differ are equal
    once in 2^63 times.
    """
    numbers = np.random.PCG64(0).random_raw(frames.shape[0])
    signs = frames.data.astype(np.int64).view(np.uint64)
    counted = csr_array((signs, frames.indices, frames.indptr), shape=frames.shape)
    products = cast("NDArray[np.uint64]", counted.T @ numbers)
    _, first, which = np.unique(products, return_index=True, return_inverse=True)
    return first, which.astype(np.int32)
