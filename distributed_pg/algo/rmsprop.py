"""RMSProp, as in the classic script."""

import math

import numpy as np

from distributed_pg.algo.policy import Floats, Policy

EPSILON = 1e-5
_BLOCK_BYTES = 128 * 1024


class RMSProp:
    """cache = decay cache + (1 - decay) g^2;  W += learning_rate g / (sqrt(cache) + 1e-5).

    Tieleman and Hinton, "Lecture 6.5: RMSProp", 2012; with a plus sign, since g is an ascent
    direction. All operations are correctly rounded in float32, so the result has the same bits with
    every instruction set that numpy may use.

    Args:
        learning_rate: the step size.
        decay: decay of the mean squared gradient.
    """

    def __init__(self, learning_rate: float, decay: float) -> None:
        self._learning_rate = learning_rate
        self._decay = decay
        self._scratch = np.empty(_BLOCK_BYTES // 4, np.float32)

    def step(self, policy: Policy, cache: Policy, gradient: Policy) -> None:
        """Update the weights and the mean squared gradient in place."""
        for weights, squares, grad in zip(
            policy.arrays, cache.arrays, gradient.arrays, strict=True
        ):
            flat = weights.reshape(-1), grad.reshape(-1), squares.reshape(-1)
            # Block by block, so that the eight passes below stay in the CPU cache.
            for start in range(0, weights.size, self._scratch.size):
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


def norm(gradient: Policy) -> float:
    """Euclidean norm over all components of all arrays."""
    return math.sqrt(sum(float(np.vdot(array, array)) for array in gradient.arrays))
