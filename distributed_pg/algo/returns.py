"""From an episode's rewards to the weight each action gets in its gradient."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def discounted_returns(rewards: Sequence[float], gamma: float) -> NDArray[np.float64]:
    """Discounted sum of the rewards from each step to the end of its rally, float64 (T,).

    A reward other than 0 means that a point was scored: what came after it has nothing to do with
    what came before, so the sum starts anew there.
    """
    returns = np.empty(len(rewards), np.float64)
    following = 0.0
    for step in range(len(rewards) - 1, -1, -1):
        reward = rewards[step]
        following = reward if reward != 0.0 else gamma * following
        returns[step] = following
    return returns


def normalized(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract the mean and divide by the standard deviation; zeros where all are equal."""
    if len(returns) == 0 or np.ptp(returns) == 0.0:
        return np.zeros_like(returns)
    standard: NDArray[np.float64] = (returns - returns.mean()) / returns.std()
    return standard
