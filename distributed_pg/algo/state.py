"""Everything a run needs to go on: what a checkpoint holds."""

from dataclasses import dataclass, replace

import numpy as np

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rollout import EpisodeStats
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import observation_shape

WINDOW = 100
"""Episodes in the mean that stop conditions and the best checkpoint go by."""
_RUNNING_WEIGHT = 0.01


@dataclass(frozen=True, slots=True)
class Progress:
    """Counters and means of a run after some whole number of updates."""

    update: int = 0
    """Updates made."""
    episodes: int = 0
    """Episodes learned from."""
    frames: int = 0
    """Emulated frames of these episodes."""
    wall_seconds: float = 0.0
    """Time spent training, earlier sessions of the run included."""
    running_mean: float | None = None
    """The classic script's running mean of the reward: 0.99 of itself and 0.01 of the new one."""
    last_rewards: tuple[float, ...] = ()
    """Rewards of the last :data:`WINDOW` episodes, oldest first."""
    best_reward: float | None = None
    """Highest reward of an episode."""
    best_mean_100: float | None = None
    """Highest :attr:`mean_100` a checkpoint was made at."""
    peak_mean_100: float | None = None
    """Highest :attr:`mean_100` after any update, once there were 100 episodes."""
    peak_episodes: int = 0
    """Episodes when that was reached."""

    @property
    def mean_100(self) -> float | None:
        """Mean reward of the last 100 episodes, or of all if fewer; None before the first."""
        return float(np.mean(self.last_rewards)) if self.last_rewards else None

    @property
    def episodes_since_peak(self) -> int:
        """Episodes since :attr:`mean_100` was last higher than ever; 0 before it is known."""
        return 0 if self.peak_mean_100 is None else self.episodes - self.peak_episodes

    def after_update(self, batch: list[EpisodeStats], wall_seconds: float) -> "Progress":
        """The progress after one more update, made from ``batch``."""
        rewards = [stats.reward for stats in batch]
        running_mean = self.running_mean
        for reward in rewards:
            running_mean = (
                reward
                if running_mean is None
                else (1.0 - _RUNNING_WEIGHT) * running_mean + _RUNNING_WEIGHT * reward
            )
        best = max(rewards) if self.best_reward is None else max(*rewards, self.best_reward)
        after = replace(
            self,
            update=self.update + 1,
            episodes=self.episodes + len(batch),
            frames=self.frames + sum(stats.frames for stats in batch),
            wall_seconds=wall_seconds,
            running_mean=running_mean,
            last_rewards=(*self.last_rewards, *rewards)[-WINDOW:],
            best_reward=best,
        )
        mean, peak = after.mean_100, self.peak_mean_100
        if mean is None or after.episodes < WINDOW or (peak is not None and mean <= peak):
            return after
        return replace(after, peak_mean_100=mean, peak_episodes=after.episodes)


@dataclass(slots=True)
class TrainingState:
    """The weights, the optimizer and the counters of a run between two updates."""

    policies: dict[int, Policy]
    """The last ``policy_lag + 1`` versions of the weights, or all while there are fewer."""
    cache: Policy
    """RMSProp's running mean of squared gradients."""
    progress: Progress

    @classmethod
    def initial(cls, config: TrainConfig) -> "TrainingState":
        """The state before the first update, from the config alone."""
        policy = Policy.init(config.seed, *policy_shape(config))
        return cls({0: policy}, policy.zeros_like(), Progress())

    @property
    def policy(self) -> Policy:
        """The newest weights."""
        return self.policies[self.progress.update]


def policy_shape(config: TrainConfig) -> tuple[int, int, int]:
    """Inputs, hidden units and actions of the run's policy."""
    rows, columns = observation_shape(config.crop)
    return rows * columns, config.hidden_units, len(config.actions)
