"""Trajectories, step by step."""

import itertools
from collections.abc import Iterator

import numpy as np

from distributed_pg.algo.rollout import Trajectory


def frames_of(game: Trajectory) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The changed pixels of each step and their values."""
    for start, end in itertools.pairwise(game.frame_starts):
        yield game.pixels[start:end], game.signs[start:end]
