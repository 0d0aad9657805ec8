"""RMSProp as the classic script has it."""

import math

import numpy as np

from distributed_pg.algo.policy import Floats, Policy

EPSILON = 1e-5
_BLOCK_BYTES = 128 * 1024


class RMSProp:
    """cache = decay cache + (1 - decay) g^2;  W += learning_rate g / (sqrt(cache) + 1e-5).

    Tieleman and Hinton, "Lecture 6.5: RMSProp", 2012; with a plus sign, since g is an ascent
    direction. Every operation is a correctly rounded float32 one, so the result has the same bits
    whatever instruction set numpy uses.
    """

    def __init__(self, learning_rate: float, decay: float) -> None:
        self._learning_rate = learning_rate
        self._decay = decay
        self._scratch = np.empty(_BLOCK_BYTES // 4, np.float32)

    def step(self, policy: Policy, cache: Policy, gradient: Policy) -> None:
        """Update ``policy`` and the ``cache`` of squared gradients in place from the sum."""
        for weights, squares, grad in zip(
            policy.arrays, cache.arrays, gradient.arrays, strict=True
        ):
            flat = weights.reshape(-1), grad.reshape(-1), squares.reshape(-1)
            # Block by block, so that the eight passes below stay in the CPU's cache.
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
    """Euclidean length of all components together."""
    return math.sqrt(sum(float(np.vdot(array, array)) for array in gradient.arrays))
