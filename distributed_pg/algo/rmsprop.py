"""RMSProp, as in the classic script."""

from dataclasses import dataclass

import numpy as np

from distributed_pg.algo.policy import Floats, Policy

_BLOCK_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class RMSProp:
    """cache = decay cache + (1 - decay) g^2;  W += learning_rate g / (sqrt(cache) + 1e-5).

    Tieleman and Hinton, "Lecture 6.5: RMSProp", 2012; with a plus sign, since g is an ascent
    direction. All operations are correctly rounded in float32, so the result has the same bits with
    every instruction set that numpy may use.

    Before that, W1 *= 1 - learning_rate weight_decay (Loshchilov and Hutter, "Decoupled weight
    decay regularization", 2019). Without, noise makes W1 grow until such steps hardly change the
    policy. W2, which sets the scale of the outputs, is left to find it.

    Where the policy sees the current frame f, g and the cache are those of weights V of its edges
    e[r] = f[r] - f[r-1], row by row. As the sum of V[r] e[r] is that of (V[r] - V[r+1]) f[r], the
    weights of the pixels are W[r] = V[r] - V[r+1]. RMSProp gives all weights the same speed. The
    pixels of a paddle are on together, so that it would move the network several times as fast as
    the ball, and some runs are sure of their actions before they have won a point. Its edges are as
    few as the ball's.
    """

    learning_rate: float
    """The step size."""
    decay: float
    """Decay of the mean squared gradient."""
    columns: int
    """Pixels in a row of a frame."""
    weight_decay: float = 0.0
    """Decay of W1, in units of the learning rate."""

    def step(self, policy: Policy, cache: Policy, gradient: Policy) -> None:
        """Update the weights and the mean squared gradient in place."""
        if self.weight_decay > 0.0:
            policy.w1[...] *= 1.0 - self.learning_rate * self.weight_decay
        step_w1 = self._step_edges if policy.sees_current_frame else self._add_steps
        step_w1(policy.w1, cache.w1, gradient.w1)
        self._add_steps(policy.w2, cache.w2, gradient.w2)

    def _step_edges(self, weights: Floats, cache: Floats, grad: Floats) -> None:
        """Update W1 of both frames, row by row of pixels."""
        units = weights.shape[1] // 2
        steps = np.empty((self.columns, 2 * units), np.float32)
        above: Floats | float = 0.0
        for start in range(0, len(weights), self.columns):
            row = slice(start, start + self.columns)
            edges = grad[row].copy()
            edges[:, units:] -= above
            above = grad[row, units:]
            steps[:] = 0.0
            self._add_steps(steps, cache[row], edges)
            weights[row] += steps
            if start > 0:
                weights[start - self.columns : start, units:] -= steps[:, units:]

    def _add_steps(self, to: Floats, cache: Floats, grad: Floats) -> None:
        flat = to.reshape(-1), cache.reshape(-1), grad.reshape(-1)
        buffer = np.empty(_BLOCK_BYTES // 4, np.float32)
        # Block by block, so that the eight passes below stay in the CPU cache.
        for start in range(0, to.size, buffer.size):
            weights, squares, g = (array[start : start + buffer.size] for array in flat)
            scratch = buffer[: len(weights)]
            np.multiply(g, g, out=scratch)
            scratch *= 1.0 - self.decay
            squares *= self.decay
            squares += scratch
            denominator = np.sqrt(squares, out=scratch)
            denominator += 1e-5
            np.divide(g, denominator, out=scratch)
            scratch *= self.learning_rate
            weights += scratch
