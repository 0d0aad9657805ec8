"""The policy: a two-layer network that reads only the changed pixels."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_ZERO = np.zeros((), np.float32)  # an array, since converting a float takes as long as using it


@dataclass(frozen=True, slots=True, repr=False)
class Policy:
    """pi(action | x) = softmax(logits): two layers, with the last action's logit fixed at 0.

    With two actions this is the sigmoid of the classic script. The output column of the fixed logit
    holds the value: the return that the network predicts, which can serve as a baseline. The class
    has no state besides its arrays, so it also stores a sum of gradients or an RMSProp cache.
    """

    w1: Floats
    """Pixels to hidden units, (D, H). Row d holds the weights of pixel d in the difference frame.
    (D, 2 H) if the policy sees the current frame, too: behind them, row d holds those of pixel d in
    the current frame."""
    w2: Floats
    """Hidden units to outputs, (H, A) for A actions: A-1 logits and the value."""

    @classmethod
    def init(
        cls, seed: int, inputs: int, hidden_units: int, actions: int, current_frame: bool = False
    ) -> "Policy":
        """Initialize with normal random weights / sqrt(fan-in).

        Those of the value and of the current frame begin with 0.
        """
        random = np.random.default_rng(seed)
        w1 = random.standard_normal((inputs, hidden_units)) / math.sqrt(inputs)
        w2 = random.standard_normal((hidden_units, actions - 1)) / math.sqrt(hidden_units)
        w2 = np.hstack([w2, np.zeros((hidden_units, 1))])
        policy = cls(w1.astype(np.float32), w2.astype(np.float32))
        return policy.with_current_frame() if current_frame else policy

    def with_current_frame(self) -> "Policy":
        """A policy that sees the current frame, but does not heed it yet."""
        return Policy(np.hstack([self.w1, np.zeros_like(self.w1)]), self.w2.copy())

    def __repr__(self) -> str:
        return f"Policy(w1 {self.w1.shape}, w2 {self.w2.shape})"

    @property
    def sees_current_frame(self) -> bool:
        """Whether the policy sees the current frame, too, not only the difference frame."""
        return bool(self.w1.shape[1] > len(self.w2))

    @property
    def arrays(self) -> tuple[Floats, Floats]:
        """W1 and W2."""
        return self.w1, self.w2

    @property
    def planes(self) -> list[Floats]:
        """W1 for the difference frame and, if it is seen, for the current frame, (D, H) each."""
        return np.hsplit(self.w1, self.w1.shape[1] // len(self.w2))

    def copy(self) -> "Policy":
        """A copy that shares no arrays with this policy."""
        return Policy(self.w1.copy(), self.w2.copy())

    def zeros_like(self) -> "Policy":
        """A policy of the same shapes with all weights 0."""
        return Policy(np.zeros_like(self.w1), np.zeros_like(self.w2))

    def forward(
        self,
        pixels: NDArray[np.intp],
        signs: Floats,
        frame_sum: Floats | None = None,
        out: tuple[Floats | None, Floats | None] = (None, None),
    ) -> tuple[Floats, Floats]:
        """Compute the network's outputs for one step.

        A single screen does not show which way the ball moves; the difference from the previous
        one does. Only about 30 of its 6400 pixels are nonzero, so its product with W1 is a sum of
        about 30 rows. What it does not show is a paddle that stands still; the current frame does.
        That is the previous frame plus the difference, and so is its product with W1.

        Args:
            pixels: positions of the changed pixels in the flattened frame, intp (n,); n may be 0.
            signs: values of the frame at those positions, float32 (n,).
            frame_sum: the previous frame times its weights in W1, float32 (H,); changed in place to
                that of this frame. None if the policy does not see the current frame.
            out: arrays for the two results, float32 (H,) and (A,).

        Returns:
            Hidden activations, float32 (H,), and outputs, float32 (A,): the logits of all actions
            but the last, and the value.
        """
        rows = self.w1.take(pixels, axis=0)
        if frame_sum is None:
            hidden = signs.dot(rows, out[0])
        else:
            sums, units = signs.dot(rows), len(frame_sum)
            frame_sum += sums[units:]
            hidden = np.add(sums[:units], frame_sum, out=out[0])
        np.maximum(hidden, _ZERO, out=hidden)
        return hidden, hidden.dot(self.w2, out[1])


def action_probabilities(outputs: Floats) -> NDArray[np.float64]:
    """softmax(logits), float64 (..., A), from outputs of :meth:`Policy.forward`, (..., A)."""
    logits = outputs.astype(np.float64)
    logits[..., -1] = 0.0
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities
