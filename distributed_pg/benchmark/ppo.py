"""Trains Stable-Baselines3's PPO on Pong, as its documentation does for Atari games.

The game is this project's: sticky actions, and games to 21. The rest is that library's: its Atari
wrappers (4 frames per step, four grey frames of 84 by 84 pixels), its convolutional network, and
PPO's default settings.
"""

import json
import sys
import time
from typing import TYPE_CHECKING

from distributed_pg.algo.state import WINDOW
from distributed_pg.own_code import own_python

if TYPE_CHECKING:
    import gymnasium

_FRAMES_PER_STEP = 4
_ENDLESS = 10**12
"""Steps that no run gets to."""


def ppo_command(score: float, workers: int, minutes: float, seed: int) -> list[str]:
    """The command that trains with :func:`train_ppo` and prints its result as a line of JSON."""
    code = f"from {__name__} import main; main()"
    return own_python(code, *map(str, (score, workers, minutes, seed)))


def main() -> None:
    """Train with the settings on the command line; print the result."""
    score, workers, minutes, seed = sys.argv[1:]
    result = train_ppo(float(score), int(workers), float(minutes), int(seed))
    sys.stdout.write(json.dumps(result) + "\n")


def train_ppo(score: float, workers: int, minutes: float, seed: int) -> dict[str, float | None]:
    """Train until the mean of the last 100 games reaches a score, or for some minutes.

    Args:
        score: the score.
        workers: number of environments, each in a process of its own.
        minutes: minutes of training after which to give up.
        seed: PPO's seed.

    Returns:
        ``minutes`` of training, ``episodes``, ``frames`` (emulated) and ``mean_100``, the mean
        reward of the last 100 games, or of all if fewer.
    """
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack

    class Watch(BaseCallback):
        """Counts games, and stops at the score."""

        games = 0

        def _on_step(self) -> bool:
            """Return False to stop."""
            ended = sum("episode" in info for info in self.locals["infos"])
            self.games += ended
            mean = self.mean_100
            there = ended and self.games >= WINDOW and mean is not None and mean >= score
            return not there and time.perf_counter() - begin < 60 * minutes

        @property
        def mean_100(self) -> float | None:
            games = self.model.ep_info_buffer  # of the last 100, by default
            return sum(game["r"] for game in games) / len(games) if games else None

    games = make_atari_env(_sticky_pong, n_envs=workers, seed=seed, vec_env_cls=SubprocVecEnv)
    model = PPO("CnnPolicy", VecFrameStack(games, n_stack=4), seed=seed, device="cpu")
    watch, begin = Watch(), time.perf_counter()
    model.learn(_ENDLESS, callback=watch)
    result = {
        "minutes": (time.perf_counter() - begin) / 60,
        "episodes": watch.games,
        "frames": model.num_timesteps * _FRAMES_PER_STEP,
        "mean_100": watch.mean_100,
    }
    games.close()
    return result


def _sticky_pong() -> "gymnasium.Env":
    """The game with its defaults, but for the frame skip, which is the wrappers'."""
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    return gymnasium.make("ALE/Pong-v5", frameskip=1)
