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


def gumbel_noise(
    random: np.random.Generator, actions: int, repeat_probability: float = 0.0
) -> Noise:
    """Yield standard Gumbel noise, drawn in blocks.

    With ``repeat_probability``, each step but the first repeats the noise of the step before it
    with this probability. The noise of a step is still standard Gumbel, but it lasts: an agent
    strays for a while rather than trembles, which explores more (Eberhard, Hollenstein, Pinneri and
    Martius, "Pink noise is all you need", 2023).
    """
    before = np.empty((0, actions))
    while True:
        noise = random.gumbel(size=(_BLOCK, actions))
        if repeat_probability > 0.0:
            repeats = random.random(_BLOCK) < repeat_probability
            repeats[0] &= len(before) > 0
            # The row that a step's noise was drawn in; -1 is the last one of the block before.
            drawn_in = np.maximum.accumulate(np.where(repeats, -1, np.arange(_BLOCK)))
            noise = np.concatenate([noise, before])[drawn_in]
            before = noise[-1:]
        numbers = iter(noise.ravel().tolist())
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
