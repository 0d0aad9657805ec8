"""Plays a game frame by frame, with all that there is to see of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ale_py import Action
from numpy.typing import NDArray

from distributed_pg.algo.policy import Policy, action_probabilities
from distributed_pg.algo.rollout import EVALUATION, begin_episode, choose, episode_seed
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import PongEnv
from distributed_pg.storage.policy_file import load_policy


@dataclass(frozen=True, slots=True)
class GameFrame:
    """One emulated frame."""

    screen: NDArray[np.uint8]
    """RGB, (210, 160, 3)."""
    seen: NDArray[np.int8]
    """The newest observation of the policy, a difference frame, (80, 80)."""
    probabilities: list[float]
    """Of each action, by that observation."""
    points: tuple[int, int]
    """Of the left side and of the right side, which is the policy's."""
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
    """A policy and the game that it was trained for."""

    config: TrainConfig
    policy: Policy
    env: "ControllablePong"

    @classmethod
    def load(cls, checkpoint: str | Path) -> "Playback":
        """The game of a checkpoint: a file, or a run's folder or URI for its newest one.

        Raises:
            UsageError: there is nothing.
            RunError: it cannot be read.
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
        """Play episode ``episode`` of the evaluation ``seed``; one moment for each frame of it.

        It is the game that :func:`distributed_pg.algo.rollout.evaluate_episode` plays, unless
        ``before_frame`` changes it.
        """
        env, points, step, over = self.env, [0, 0], 0, False
        noise = begin_episode(env, episode_seed(seed, episode, EVALUATION), greedy=greedy)
        seen = np.zeros(self.env.observation_space.shape or (), np.int8)
        _, outputs = self.policy.forward(np.empty(0, np.intp), np.empty(0, np.float32))
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
                    _, outputs = self.policy.forward(pixels, signs)
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


# The byte in which the game keeps the left paddle's last row, found by writing to each in turn.
# Byte 50, which is known for that, is a copy: to write it moves nothing. Rows are drawn in pairs.
_LEFT_PADDLE = 21
_TOP, _BOTTOM = 50, 206


class ControllablePong(PongEnv):
    """Pong whose left paddle can be moved as well."""

    _own_move = 0

    @property
    def over(self) -> bool:
        """Whether the game is over, or cut off."""
        return self._ale.game_over()

    @property
    def screen(self) -> NDArray[np.uint8]:
        """The screen as RGB, (210, 160, 3)."""
        return self._ale.getScreenRGB()

    def move_left(self, rows: int) -> None:
        """Have the left paddle ``rows`` further down after the next frame, an even number.

        The game's own player moves it as well, by -2, 0 or 2 rows in a frame. Which, is found by
        trying, and the paddle is put to where that move takes it to the right place. In the one
        frame of each serve in which the game puts the paddle to the middle, it stays there.
        """
        ale = self._ale
        start = ale.cloneState()
        wanted = min(max(int(ale.getRAM()[_LEFT_PADDLE]) + rows, _TOP), _BOTTOM)
        for move in sorted((-2, 0, 2), key=lambda move: move != self._own_move):  # the last first
            ale.setRAM(_LEFT_PADDLE, wanted - move)
            ale.act(Action.NOOP)
            arrived = int(ale.getRAM()[_LEFT_PADDLE]) == wanted
            ale.restoreState(start)
            if arrived:
                ale.setRAM(_LEFT_PADDLE, wanted - move)
                self._own_move = move
                return
