"""Measures the time to a score: training from scratch, until the last 100 games are that good."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from distributed_pg.algo.state import WINDOW
from distributed_pg.benchmark.ppo import ppo_command
from distributed_pg.benchmark.train_command import output_of, train
from distributed_pg.determinism import environment, kernel_environment
from distributed_pg.errors import counted

_WHAT = "a run that was to be timed"


@dataclass(frozen=True, slots=True)
class TimeToScore:
    """How far a training run from scratch came, and how long it took."""

    name: str
    """training, or sb3-ppo: Stable-Baselines3's PPO."""
    workers: int
    seed: int
    score: float
    """The mean of the last 100 games at which it was to stop."""
    minutes: float
    """Minutes of training to the last update, without the start."""
    episodes: int
    frames: int
    """Emulated frames, in whole episodes."""
    mean_100: float | None
    """Mean reward of the last 100 games, or of all if fewer; None if none was finished."""

    @property
    def reached(self) -> bool:
        """Whether the score was reached; otherwise the run was given up."""
        mean = self.mean_100
        return self.episodes >= WINDOW and mean is not None and mean >= self.score

    @property
    def frames_per_second(self) -> float:
        """Emulated frames per second."""
        return self.frames / (60 * self.minutes)


def times_to_score(
    score: float,
    workers: int,
    minutes: float,
    seed: int,
    *,
    with_ppo: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> list[TimeToScore]:
    """Train from scratch until the mean of the last 100 games reaches a score.

    Args:
        score: the score.
        workers: number of workers, and of PPO's environments.
        minutes: minutes of training after which a run is given up.
        seed: the run's seed.
        with_ppo: also train with Stable-Baselines3's PPO, if it is installed.
        progress: called with a description of each run.

    Returns:
        One or two runs, the default preset's first.

    Raises:
        RunError: a run failed.
    """
    goal = f"{counted(workers, 'worker')}, seed {seed}, until {score:g} or {minutes:g} minutes"
    progress(f"time to a score: training with {goal}")
    times = [_train(score, workers, minutes, seed)]
    if with_ppo and find_spec("stable_baselines3"):
        progress(f"time to a score: Stable-Baselines3's PPO with {goal}")
        times.append(_train_ppo(score, workers, minutes, seed))
    elif with_ppo:
        progress("time to a score: stable_baselines3 is not installed, so its PPO is left out")
    return times


def _train(score: float, workers: int, minutes: float, seed: int) -> TimeToScore:
    """Train with the default preset, with the command that users run."""
    flags = {
        "num-workers": workers,
        "seed": seed,
        "stop-reward": score,
        "stop-minutes": minutes,
    }
    with _all_kernels():
        last = train("--quiet", *(f"--{k}={v}" for k, v in flags.items()), what=_WHAT)
    return TimeToScore("training", workers, seed, score, **_figures(last, minutes))


def _figures(last: dict[str, Any] | None, minutes: float) -> dict[str, Any]:
    """What the last line of a run's metrics says; the run took ``minutes`` if there is none."""
    if last is None:
        return {"minutes": minutes, "episodes": 0, "frames": 0, "mean_100": None}
    figures = {name: last[name] for name in ("episodes", "frames", "mean_100")}
    return {"minutes": last["wall_seconds"] / 60, **figures}


def _train_ppo(score: float, workers: int, minutes: float, seed: int) -> TimeToScore:
    with _all_kernels():
        output = output_of(ppo_command(score, workers, minutes, seed), _WHAT)
    result = json.loads(output.splitlines()[-1])
    return TimeToScore("sb3-ppo", workers, seed, score, **result)


def _all_kernels() -> AbstractContextManager[None]:
    """Let processes started in the ``with`` block use all CPU instructions and threads."""
    return environment(dict.fromkeys(kernel_environment()))
