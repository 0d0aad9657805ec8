"""The state of training: everything needed to resume a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from distributed_pg.algo.policy import Policy
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import frame_shape

WINDOW = 100
"""Number of episodes in the mean used by stop conditions and the best checkpoint."""
_RUNNING_WEIGHT = 0.01


@dataclass(frozen=True, slots=True)
class Progress:
    """Counters and means of a run between two updates."""

    update: int = 0
    """Updates made."""
    episodes: int = 0
    """Episodes learned from."""
    frames: int = 0
    """Emulated frames of these episodes."""
    wall_seconds: float = 0.0
    """Time spent training, including earlier sessions of the run."""
    running_mean: float | None = None
    """Running mean of the reward as in the classic script: 0.99 old mean + 0.01 new reward."""
    last_rewards: tuple[float, ...] = field(default=(), repr=False)
    """Rewards of the last :data:`WINDOW` episodes, oldest first."""
    best_reward: float | None = None
    """Highest reward of an episode."""
    best_mean_100: float | None = None
    """Value of :attr:`mean_100` at the best checkpoint."""
    peak_mean_100: float | None = None
    """Highest :attr:`mean_100` after any update, from 100 episodes on."""
    peak_episodes: int = 0
    """Number of episodes at that peak."""

    @property
    def mean_100(self) -> float | None:
        """Mean reward of the last 100 episodes, or of all if fewer; None before the first."""
        return float(np.mean(self.last_rewards)) if self.last_rewards else None

    @property
    def episodes_since_peak(self) -> int:
        """Episodes since the last peak of :attr:`mean_100`; 0 before the first."""
        return 0 if self.peak_mean_100 is None else self.episodes - self.peak_episodes

    def after_update(
        self, rewards: Sequence[float], frames: int, wall_seconds: float
    ) -> "Progress":
        """The progress after one more update.

        Args:
            rewards: the reward of each of its episodes.
            frames: emulated frames of all of them.
            wall_seconds: seconds of training since the beginning of the run.
        """
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
            episodes=self.episodes + len(rewards),
            frames=self.frames + frames,
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
    """Weights, optimizer state and counters of a run between two updates."""

    policies: dict[int, Policy]
    """The last ``policy_lag + 1`` versions of the weights, by version; fewer at the start."""
    cache: Policy
    """RMSProp's running mean of squared gradients."""
    progress: Progress

    @classmethod
    def initial(cls, config: TrainConfig) -> "TrainingState":
        """The state before the first update; depends only on the config."""
        policy = Policy.init(config.seed, *policy_shape(config))
        return cls({0: policy}, policy.zeros_like(), Progress())

    @property
    def policy(self) -> Policy:
        """The newest weights."""
        return self.policies[self.progress.update]


def policy_shape(config: TrainConfig) -> tuple[int, int, int, bool]:
    """Numbers of pixels, hidden units and actions, and whether it sees the current frame."""
    rows, columns = frame_shape(config.crop)
    return rows * columns, config.hidden_units, len(config.actions), config.current_frame
