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
from distributed_pg.envs.pong import Crop, PongEnv, frame_shape
from distributed_pg.storage.policy_file import load_policy

STILL = 2
"""Value of a pixel that shows in the current frame, and did in the previous one."""


@dataclass(frozen=True, slots=True)
class GameFrame:
    """One emulated frame."""

    screen: NDArray[np.uint8]
    """RGB, (210, 160, 3)."""
    seen: NDArray[np.int8]
    """The policy's latest observation: its difference frame, (80, 80) at the default crop. If the
    policy sees the current frame, too, :data:`STILL` is what shows there without having changed."""
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


class _Sight:
    """What a policy sees of a game, and makes of it."""

    def __init__(self, env: "ControllablePong", policy: Policy, crop: Crop) -> None:
        pixels, signs, self._frame_sum = first_step(env, policy)
        self._policy, self._frame = policy, np.zeros(frame_shape(crop), np.int8)
        self.look(pixels, signs)

    def look(self, pixels: NDArray[np.intp], signs: NDArray[np.float32]) -> None:
        """Take the changed pixels of the next step."""
        _, self.outputs = self._policy.forward(pixels, signs, self._frame_sum)
        self.probabilities: list[float] = action_probabilities(self.outputs).tolist()
        self.seen = np.zeros_like(self._frame)
        self.seen.reshape(-1)[pixels] = signs
        if self._policy.sees_current_frame:
            self._frame += self.seen
            self.seen[(self.seen == 0) & (self._frame == 1)] = STILL


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
        sight = _Sight(env, self.policy, self.config.crop)
        while not over:
            action = choose(sight.outputs, next(noise))
            step += 1
            for frame in range(1, env.frame_skip + 1):
                before_frame()
                reward = env.emulate(action, 1)
                points[reward > 0] += abs(int(reward))
                over = env.over
                if over or frame == env.frame_skip:
                    pixels, signs, _, _ = env.observe()
                    sight.look(pixels, signs)
                yield GameFrame(
                    env.screen,
                    sight.seen,
                    sight.probabilities,
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
