"""The random numbers that turn the network's outputs into actions."""

import itertools
from collections.abc import Iterator, Sequence
from operator import add

import numpy as np

from distributed_pg.algo.policy import Floats

_BLOCK = 1024
"""Steps drawn at a time."""


class Noise:
    """Noise for :func:`choose`: a number per action at each step, without end.

    Noise that is independent at every step shakes the paddle, but hardly ever meets a ball with
    another part of it. So in training each logit is also shifted by a number that stays for a whole
    rally, and the points that are won or lost show which way to lean: noise in the biases of the
    logits (Rückstieß et al., "Exploring parameter space in reinforcement learning", 2010). The
    gradient is that of the policy without the shift; given the shift, the actions that it brings
    about would be no surprise, and nothing would be learned from them.

    Args:
        steps: independent noise of each step, (A,) each.
        shifts: the shift of each rally, (A,) each.
    """

    def __init__(self, steps: Iterator[Sequence[float]], shifts: Iterator[Sequence[float]]) -> None:
        self._steps, self._shifts = steps, shifts
        self.next_rally()

    @classmethod
    def of(cls, seed: np.random.SeedSequence, actions: int, exploration: float) -> "Noise":
        """The noise that samples from the policy, with a shift for each rally.

        Args:
            seed: the only source of random numbers.
            actions: number of actions, A.
            exploration: standard deviation of the shift; with 0, there is none.
        """
        (of_rallies,) = seed.spawn(1)
        shifts = _shifts(np.random.default_rng(of_rallies), actions, exploration)
        return cls(_gumbel(np.random.default_rng(seed), actions), shifts)

    @classmethod
    def none(cls, actions: int) -> "Noise":
        """No noise: the most probable action is chosen."""
        zeros = itertools.repeat([0.0] * actions)
        return cls(zeros, zeros)

    def __next__(self) -> list[float]:
        return list(map(add, next(self._steps), self._shift))

    def next_rally(self) -> None:
        """Go on to the next shift: a point has been scored."""
        self._shift = next(self._shifts)


def choose(outputs: Floats, noise: Sequence[float]) -> int:
    """Choose the action with the highest sum of logit and noise.

    With independent standard Gumbel noise for each action, the choice is a sample of
    softmax(logits) (the Gumbel-max trick; Maddison, Tarlow and Minka, "A* sampling", 2014); with
    zero noise it is the most probable action. Sampling from the softmax directly would compute
    exponentials while the game waits; the noise does not depend on the logits and is drawn a
    thousand steps at a time.

    Args:
        outputs: outputs of the network, float32 (A,).
        noise: one number per action.
    """
    logits = outputs.tolist()
    logits[-1] = 0.0  # replaces the value
    scores = list(map(add, logits, noise))
    return scores.index(max(scores))


def _gumbel(random: np.random.Generator, actions: int) -> Iterator[Sequence[float]]:
    """Yield standard Gumbel noise, drawn in blocks."""
    while True:
        numbers = iter(random.gumbel(size=_BLOCK * actions).tolist())
        # Tuples made on demand: a thousand lists at once would trigger the garbage collector.
        yield from zip(*[numbers] * actions, strict=True)


def _shifts(
    random: np.random.Generator, actions: int, exploration: float
) -> Iterator[Sequence[float]]:
    """Yield normal shifts of all logits but the last, which is fixed."""
    while True:
        yield [*(exploration * random.standard_normal(actions - 1)).tolist(), 0.0]
