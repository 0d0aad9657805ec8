"""RMSProp, as in the classic script."""

import numpy as np

from distributed_pg.algo.policy import Floats, Policy

EPSILON = 1e-5
_BLOCK_BYTES = 128 * 1024


class RMSProp:
    """cache = decay cache + (1 - decay) g^2;  W += learning_rate g / (sqrt(cache) + 1e-5).

    Tieleman and Hinton, "Lecture 6.5: RMSProp", 2012; with a plus sign, since g is an ascent
    direction. All operations are correctly rounded in float32, so the result has the same bits with
    every instruction set that numpy may use.

    Where the policy sees the current frame f, g and the cache are those of weights V of its edges
    e[r] = f[r] - f[r-1], row by row. As the sum of V[r] e[r] is that of (V[r] - V[r+1]) f[r], the
    weights of the pixels are W[r] = V[r] - V[r+1]. RMSProp gives all weights the same speed. The
    pixels of a paddle are on together, so that it would move the network several times as fast as
    the ball, and some runs are sure of their actions before they have won a point. Its edges are as
    few as the ball's.

    Args:
        learning_rate: the step size.
        decay: decay of the mean squared gradient.
        columns: pixels in a row of a frame.
    """

    def __init__(self, learning_rate: float, decay: float, columns: int) -> None:
        self._learning_rate = learning_rate
        self._decay = decay
        self._columns = columns
        self._scratch = np.empty(_BLOCK_BYTES // 4, np.float32)

    def step(self, policy: Policy, cache: Policy, gradient: Policy) -> None:
        """Update the weights and the mean squared gradient in place."""
        if policy.sees_current_frame:
            self._step_edges(policy.w1, cache.w1, gradient.w1)
        else:
            self._add_steps(policy.w1, cache.w1, gradient.w1)
        self._add_steps(policy.w2, cache.w2, gradient.w2)

    def _step_edges(self, weights: Floats, cache: Floats, grad: Floats) -> None:
        """Update W1 of both frames, row by row of pixels."""
        units = weights.shape[1] // 2
        steps = np.empty((self._columns, 2 * units), np.float32)
        above: Floats | float = 0.0
        for start in range(0, len(weights), self._columns):
            row = slice(start, start + self._columns)
            edges = grad[row].copy()
            edges[:, units:] -= above
            above = grad[row, units:]
            steps[:] = 0.0
            self._add_steps(steps, cache[row], edges)
            weights[row] += steps
            if start > 0:
                weights[start - self._columns : start, units:] -= steps[:, units:]

    def _add_steps(self, to: Floats, cache: Floats, grad: Floats) -> None:
        flat = to.reshape(-1), grad.reshape(-1), cache.reshape(-1)
        # Block by block, so that the eight passes below stay in the CPU cache.
        for start in range(0, to.size, self._scratch.size):
            block = slice(start, start + self._scratch.size)
            self._step_block(*(array[block] for array in flat))

    def _step_block(self, weights: Floats, grad: Floats, cache: Floats) -> None:
        scratch = self._scratch[: len(weights)]
        np.multiply(grad, grad, out=scratch)
        scratch *= 1.0 - self._decay
        cache *= self._decay
        cache += scratch
        denominator = np.sqrt(cache, out=scratch)
        denominator += EPSILON
        np.divide(grad, denominator, out=scratch)
        scratch *= self._learning_rate
        weights += scratch
