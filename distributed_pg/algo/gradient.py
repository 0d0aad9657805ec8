"""The gradient of an episode, stored as the distinct touched rows of W1."""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from distributed_pg.algo.policy import Floats, Policy

_BLOCK_BYTES = 2**20
_ROWS_TOGETHER = 128
"""Rows added at a time, few enough to stay in the CPU cache."""


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient of an episode, without the rows of W1 whose pixel never changed.

    The gradient of row d of W1 is the sum, over the steps at which pixel d changed, of its sign
    times the gradient of the hidden units. So pixels that change at the same steps with the same
    signs, like those of the ball, have equal rows. Each distinct row is stored once, which reduces
    the bytes to send.

    It is an ascent direction: adding a small multiple of it to the weights makes actions with
    higher returns more likely.
    """

    rows: NDArray[np.int32]
    """Indices of the touched rows of W1, ascending, (n,)."""
    row_index: NDArray[np.int32]
    """Index into ``unique_w1_rows`` of the gradient of each touched row, (n,)."""
    unique_w1_rows: Floats
    """Distinct gradients of rows of W1, (m, H), or (m, 2 H) with the current frame; m <= n."""
    w2: Floats
    """Gradient of W2, (H, A)."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle W1's rows in blocks below 1 MiB.

        Ray copies larger arrays with six threads; if all cores are busy, those wait for each other
        longer than the copy takes.
        """
        unique = self.unique_w1_rows
        rows = max(1, (_BLOCK_BYTES - 1) // (unique.itemsize * unique.shape[1]))
        blocks = [unique[start : start + rows] for start in range(0, max(1, len(unique)), rows)]
        return _joined, (self.rows, self.row_index, blocks, self.w2)

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return sum(a.nbytes for a in (self.rows, self.row_index, self.unique_w1_rows, self.w2))

    @property
    def is_finite(self) -> bool:
        """Whether it contains no NaN or infinity."""
        arrays = (self.unique_w1_rows, self.w2)
        return all(math.isfinite(float(np.vdot(array, array))) for array in arrays)

    def add_to(self, total: Policy) -> None:
        """Add this gradient to a sum in place.

        Float addition is not associative: the bits of the sum depend on the order of the gradients,
        so the learner adds them in the order of the episodes.
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

    The n changed pixels of all frames are concatenated; those of step t are
    ``pixels[frame_starts[t]:frame_starts[t + 1]]``.

    Args:
        policy: the weights that played the episode.
        pixels: positions of the changed pixels in the flattened frame, intp (n,).
        signs: values of the frames at those positions, -1 or 1, float32 (n,).
        frame_starts: offset of each step's pixels, from 0 to n, intp (T + 1,).
        hidden: hidden activations from :meth:`Policy.forward`, float32 (T, H).
        output_gradients: gradient of the objective with respect to the outputs, float32 (T, A).

    Returns:
        The gradient of the objective with respect to the weights.
    """
    hidden_gradients = np.dot(output_gradients, policy.w2.T)
    hidden_gradients *= hidden > 0.0
    if policy.sees_current_frame:
        # A pixel that changes at step t is changed in all frames from t on.
        later = np.cumsum(hidden_gradients[::-1], axis=0)[::-1]
        hidden_gradients = np.hstack([hidden_gradients, later])

    touched = np.zeros(len(policy.w1), np.bool_)
    touched[pixels] = True
    rows = touched.nonzero()[0]
    row_of_pixel = np.cumsum(touched) - 1
    # A sparse matrix (steps, touched pixels). SciPy sums step by step, so the order is fixed.
    frames = csr_array((signs, row_of_pixel[pixels], frame_starts), shape=(len(hidden), len(rows)))
    w1_rows = frames.T @ hidden_gradients
    first, row_index = _unique_columns(frames)
    return Gradient(
        rows.astype(np.int32),
        row_index,
        w1_rows.take(first, axis=0),
        np.dot(hidden.T, output_gradients),
    )


def _unique_columns(frames: csr_array) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Find equal columns; all entries are -1 or 1.

    Columns are compared by a hash: the product with a fixed vector of random numbers, modulo 2^64.
    The hashes of two different columns collide with probability 2^-63.

    Returns:
        The index of the first column of each kind, (m,), and the kind of each column, (n,).
    """
    numbers = np.random.PCG64(0).random_raw(frames.shape[0])
    signs = frames.data.astype(np.int64).view(np.uint64)
    integers = csr_array((signs, frames.indices, frames.indptr), shape=frames.shape)
    hashes = cast("NDArray[np.uint64]", integers.T @ numbers)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return first, inverse.astype(np.int32)
