"""Discounted returns, and their normalization to advantages."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def discounted_returns(rewards: Sequence[float], gamma: float) -> NDArray[np.float64]:
    """Discounted sum of the rewards from each step to the end of its rally.

    A nonzero reward means that a point was scored. What follows is unrelated to what came before,
    so the sum is reset there.

    Args:
        rewards: the reward of each step, (T,).
        gamma: the discount factor.

    Returns:
        The returns, float64 (T,).
    """
    returns = np.empty(len(rewards), np.float64)
    following = 0.0
    for step in range(len(rewards) - 1, -1, -1):
        reward = rewards[step]
        following = reward if reward != 0.0 else gamma * following
        returns[step] = following
    return returns


def normalized(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract the mean and divide by the standard deviation; all 0 if all returns are equal."""
    if len(returns) == 0 or np.ptp(returns) == 0.0:
        return np.zeros_like(returns)
    standard: NDArray[np.float64] = (returns - returns.mean()) / returns.std()
    return standard
