"""The policy: a two-layer network that reads only the pixels that changed."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_ZERO = np.zeros((), np.float32)  # an array: numpy takes as long to make one as to use it


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

        The outputs are the logits of all actions but the last, and the value. One frame does not
        show which way the ball flies; what changed since the last one does, and is only about 30
        of 6400 pixels. So W1's product with the frame is a sum of 30 of its rows.

        Args:
            pixels: positions of the changed pixels in the flattened frame, (n,); n may be 0.
            signs: the frame at those positions, (n,).
            out: where to write the two, (H,) and (A,).
        """
        hidden = signs.dot(self.w1.take(pixels, axis=0), out[0])
        np.maximum(hidden, _ZERO, out=hidden)
        return hidden, hidden.dot(self.w2, out[1])


def action_probabilities(outputs: Floats) -> NDArray[np.float64]:
    """softmax(logits), float64 (..., A), from the outputs of :meth:`Policy.forward`, (..., A)."""
    logits = outputs.astype(np.float64)
    logits[..., -1] = 0.0
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities
