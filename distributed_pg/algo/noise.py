"""The random numbers that turn the network's outputs into actions."""

from collections.abc import Iterator, Sequence
from operator import add
from typing import TypeAlias

import numpy as np

from distributed_pg.algo.policy import Floats

Noise: TypeAlias = Iterator[Sequence[float]]
"""Noise for :func:`choose`: at each step a number per action, without end."""

_BLOCK = 1024
"""Steps drawn at a time."""


def gumbel_noise(random: np.random.Generator, actions: int) -> Noise:
    """Yield standard Gumbel noise, drawn in blocks."""
    while True:
        numbers = iter(random.gumbel(size=_BLOCK * actions).tolist())
        # Tuples made on demand: a thousand lists at once would trigger the garbage collector.
        yield from zip(*[numbers] * actions, strict=True)


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
