"""Plays a game frame by frame, with everything a viewer draws."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ale_py import Action
from numpy.typing import NDArray

from distributed_pg.algo.noise import choose
from distributed_pg.algo.policy import Policy, action_probabilities
from distributed_pg.algo.rollout import EVALUATION, begin_episode, episode_seed, first_step
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import PongEnv, observation_shape
from distributed_pg.storage.policy_file import load_policy


@dataclass(frozen=True, slots=True)
class GameFrame:
    """One emulated frame."""

    screen: NDArray[np.uint8]
    """RGB, (210, 160, 3)."""
    seen: NDArray[np.int8]
    """The difference frame of the policy's latest observation; (80, 80) at the default crop."""
    probabilities: list[float]
    """Probability of each action given that observation."""
    points: tuple[int, int]
    """Points of the left side and of the right side; the policy plays on the right."""
    frame: int
    """Emulated frames so far."""
    step: int
    """Actions taken so far."""
    over: bool
    """Whether the game ends here."""

    @property
    def reward(self) -> int:
        """The policy's points minus the other side's."""
        return self.points[1] - self.points[0]


@dataclass(frozen=True, slots=True)
class Playback:
    """A policy and the game it was trained on."""

    config: TrainConfig
    policy: Policy
    env: "ControllablePong"

    @classmethod
    def load(cls, checkpoint: str | Path) -> "Playback":
        """Load a checkpoint's policy and its game.

        Args:
            checkpoint: a file, or a run's folder or URI, which stands for its newest checkpoint.

        Raises:
            UsageError: there is no checkpoint.
            RunError: the checkpoint cannot be read.
        """
        loaded = load_policy(checkpoint)
        env = ControllablePong(**loaded.config.env_settings())
        return cls(loaded.config, loaded.policy, env)

    def watch(
        self,
        seed: int,
        episode: int,
        *,
        greedy: bool = False,
        before_frame: Callable[[], None] = lambda: None,
    ) -> Iterator[GameFrame]:
        """Play one evaluation episode and yield each emulated frame.

        The game is the one :func:`distributed_pg.episode.evaluate_episode` plays, unless
        ``before_frame`` interferes.

        Args:
            seed: seed of the evaluation.
            episode: index of the episode.
            greedy: take the most probable action instead of sampling.
            before_frame: called before each frame is emulated.
        """
        env, points, step, over = self.env, [0, 0], 0, False
        noise = begin_episode(env, episode_seed(seed, episode, EVALUATION), greedy=greedy)
        seen = np.zeros(observation_shape(self.config.crop), np.int8)
        pixels, signs, frame_sum = first_step(env, self.policy)
        _, outputs = self.policy.forward(pixels, signs, frame_sum)
        probabilities = action_probabilities(outputs).tolist()
        while not over:
            action = choose(outputs, next(noise))
            step += 1
            for frame in range(1, env.frame_skip + 1):
                before_frame()
                reward = env.emulate(action, 1)
                points[reward > 0] += abs(int(reward))
                over = env.over
                if over or frame == env.frame_skip:
                    pixels, signs, _, _ = env.observe()
                    _, outputs = self.policy.forward(pixels, signs, frame_sum)
                    probabilities = action_probabilities(outputs).tolist()
                    seen = np.zeros_like(seen)
                    seen.reshape(-1)[pixels] = signs
                yield GameFrame(
                    env.screen,
                    seen,
                    probabilities,
                    (points[0], points[1]),
                    env.emulated_frames,
                    step,
                    over,
                )
                if over:
                    break


# The RAM byte that holds the left paddle's last row, found by writing to each byte in turn. Byte
# 50, the one usually cited, is a copy: writing it moves nothing. Rows are drawn in pairs.
_LEFT_PADDLE = 21
_TOP, _BOTTOM = 50, 206


class ControllablePong(PongEnv):
    """Pong with a left paddle that the caller can move."""

    _own_move = 0

    @property
    def over(self) -> bool:
        """Whether the game is over or truncated."""
        return self._ale.game_over()

    @property
    def screen(self) -> NDArray[np.uint8]:
        """The screen as RGB, uint8 (210, 160, 3)."""
        return self._ale.getScreenRGB()

    def move_left(self, rows: int) -> None:
        """Move the left paddle down by ``rows``, as of the next frame.

        The game's own player also moves it, by -2, 0 or 2 rows per frame. This tries each move and
        offsets the paddle by the one that leads to the requested row. In the one frame of each
        serve in which the game centres the paddle, it stays centred.

        Args:
            rows: screen rows, an even number; negative moves up.
        """
        ale = self._ale
        start = ale.cloneState()
        target = min(max(int(ale.getRAM()[_LEFT_PADDLE]) + rows, _TOP), _BOTTOM)
        # Try the last move first.
        for move in sorted((-2, 0, 2), key=lambda move: move != self._own_move):
            ale.setRAM(_LEFT_PADDLE, target - move)
            ale.act(Action.NOOP)
            arrived = int(ale.getRAM()[_LEFT_PADDLE]) == target
            ale.restoreState(start)
            if arrived:
                ale.setRAM(_LEFT_PADDLE, target - move)
                self._own_move = move
                return
