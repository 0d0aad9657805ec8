"""The policy: a two-layer network that reads only the pixels that changed."""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float32]

_BLOCK_BYTES = 2**20
_ROWS_TOGETHER = 128
"""Rows that are added at a time, so that they stay in the processor's cache meanwhile."""
_ZERO = np.zeros((), np.float32)  # an array: numpy takes as long to make one as to use it


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient of one episode, without the rows of W1 whose pixel never changed.

    Pixels that always changed together, as those of the ball do, have the same gradient, which is
    there once.

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

    def add_to(self, total: "Policy") -> None:
        """Add this gradient to ``total``, a policy-shaped sum, in place."""
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


@dataclass(frozen=True, slots=True)
class Policy:
    """pi(action | x) = softmax(logits): two layers, the last action's logit fixed at 0.

    For two actions this is the sigmoid of the classic script. In the place of the last logit stands
    the value: the return that the network expects, which may serve as a baseline. The arrays are
    all there is, so a sum of gradients or a cache, which has the same shapes, is stored in one too.
    """

    w1: Floats
    """Pixels to hidden units, (D, H). Row d is what pixel d adds to the hidden units."""
    w2: Floats
    """Hidden units to outputs, (H, A) for A actions: A-1 logits and the value."""

    @classmethod
    def init(cls, seed: int, inputs: int, hidden_units: int, actions: int) -> "Policy":
        """Random weights, normal / sqrt(fan-in), from ``seed`` alone; 0 for the value."""
        random = np.random.default_rng(seed)
        w1 = random.standard_normal((inputs, hidden_units)) / math.sqrt(inputs)
        w2 = random.standard_normal((hidden_units, actions - 1)) / math.sqrt(hidden_units)
        w2 = np.hstack([w2, np.zeros((hidden_units, 1))])
        return cls(w1.astype(np.float32), w2.astype(np.float32))

    @property
    def arrays(self) -> tuple[Floats, Floats]:
        """W1 and W2."""
        return self.w1, self.w2

    def copy(self) -> "Policy":
        """A policy with arrays of its own."""
        return Policy(self.w1.copy(), self.w2.copy())

    def zeros_like(self) -> "Policy":
        """A policy of the same shapes with every weight 0."""
        return Policy(np.zeros_like(self.w1), np.zeros_like(self.w2))

    def forward(
        self,
        pixels: NDArray[np.intp],
        signs: Floats,
        out: tuple[Floats | None, Floats | None] = (None, None),
    ) -> tuple[Floats, Floats]:
        """Hidden activations (H,) and outputs (A,) for one difference frame.

        The outputs are the logits of all actions but the last, and the value.

        Args:
            pixels: positions of the changed pixels in the flattened frame, (n,); n may be 0.
            signs: the frame at those positions, (n,).
            out: where to write the two, (H,) and (A,).
        """
        hidden = signs.dot(self.w1.take(pixels, axis=0), out[0])
        np.maximum(hidden, _ZERO, out=hidden)
        return hidden, hidden.dot(self.w2, out[1])

    def gradient(
        self,
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
            pixels: positions in the flattened frame, (n,).
            signs: the frames at those positions, -1 or 1, (n,).
            frame_starts: (T + 1,), from 0 to n.
            hidden: what :meth:`forward` returned at each step, (T, H).
            output_gradients: gradient of the objective with respect to the outputs, (T, A).
        """
        hidden_gradients = np.dot(output_gradients, self.w2.T)
        hidden_gradients *= hidden > 0.0

        inputs = len(self.w1)
        touched = np.zeros(inputs, np.bool_)
        touched[pixels] = True
        rows = touched.nonzero()[0]
        row_of_pixel = np.cumsum(touched) - 1
        frames = csr_array(
            (signs, row_of_pixel[pixels], frame_starts), shape=(len(hidden), len(rows))
        )
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

    All entries are -1 or 1. Columns are told apart by their products, modulo 2^64, with a vector of
    random numbers, the same ones every time: those of two that differ are equal once in 2^63 times.
    """
    numbers = np.random.PCG64(0).random_raw(frames.shape[0])
    signs = frames.data.astype(np.int64).view(np.uint64)
    counted = csr_array((signs, frames.indices, frames.indptr), shape=frames.shape)
    products = cast("NDArray[np.uint64]", counted.T @ numbers)
    _, first, which = np.unique(products, return_index=True, return_inverse=True)
    return first, which.astype(np.int32)


def action_probabilities(outputs: Floats) -> NDArray[np.float64]:
    """softmax(logits), float64 (..., A), from the outputs of :meth:`Policy.forward`, (..., A)."""
    logits = outputs.astype(np.float64)
    logits[..., -1] = 0.0
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities
