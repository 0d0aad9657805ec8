"""What changes in the course of a run: RMSProp's settings, and how sure the policy is.

The learning rate falls slowly with the number of episodes. Besides, a run settles as its policy
gets better. What counts is how much the best 100 episodes lack to a perfect game, as a share of its
21 points. Once they win, the learning rate falls with the square of this share, and the logits grow
with the inverse of its root: a policy learns to be sure of its actions far more slowly than it
learns which are better, and chance costs it two or three points a game.
"""

import math

from distributed_pg.algo.rmsprop import RMSProp
from distributed_pg.algo.state import Progress
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import frame_shape

_PERFECT = 21.0
"""Reward of a game that is won without losing a point."""


def optimizer_after(config: TrainConfig, progress: Progress) -> RMSProp:
    """RMSProp for the update that follows ``progress``."""
    lacking = _lacking(config, progress)
    learning_rate = config.learning_rate * lacking * lacking
    if config.anneal_episodes is not None:
        learning_rate /= 1.0 + progress.episodes / config.anneal_episodes
    decay = config.decay
    if config.warm_up and not config.init_optimizer:
        decay = min(decay, progress.update / (progress.update + 1))
    return RMSProp(learning_rate, decay, frame_shape(config.crop)[1], config.weight_decay)


def sharpening(config: TrainConfig, before: Progress, after: Progress) -> float:
    """What an update multiplies the logits by, after its step.

    Args:
        config: the run's settings.
        before: the progress before the update.
        after: the progress with it.
    """
    if before.peak_mean_100 is None:
        return 1.0  # A warm start may begin with a policy that is sharp.
    return math.sqrt(_lacking(config, before) / _lacking(config, after))


def _lacking(config: TrainConfig, progress: Progress) -> float:
    """The share of a perfect game's points that the best 100 episodes lack, at least one point."""
    peak = progress.peak_mean_100
    if not config.anneal_by_reward or peak is None or peak <= 0.0:
        return 1.0
    return max(_PERFECT - peak, 1.0) / _PERFECT
