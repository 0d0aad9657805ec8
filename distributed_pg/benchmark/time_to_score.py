"""Measures the time to a score: training from scratch, until the last 100 games are that good."""

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distributed_pg.algo.state import WINDOW
from distributed_pg.benchmark.ppo import ppo_command
from distributed_pg.determinism import environment, kernel_environment
from distributed_pg.errors import RunError, counted, one_line
from distributed_pg.own_code import own_command
from distributed_pg.storage.metrics import METRICS, read_metrics


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
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        flags = {
            "run-dir": run,
            "num-workers": workers,
            "seed": seed,
            "stop-reward": score,
            "stop-minutes": minutes,
        }
        _output(own_command("train", "--quiet", *(f"--{k}={v}" for k, v in flags.items())))
        updates = read_metrics(run / METRICS)
    return TimeToScore("training", workers, seed, score, **_last(updates, minutes))


def _last(updates: list[dict[str, Any]], minutes: float) -> dict[str, Any]:
    """What the last line of a run's metrics says; the run took ``minutes`` if it has none."""
    if not updates:
        return {"minutes": minutes, "episodes": 0, "frames": 0, "mean_100": None}
    last = updates[-1]
    figures = {name: last[name] for name in ("episodes", "frames", "mean_100")}
    return {"minutes": last["wall_seconds"] / 60, **figures}


def _train_ppo(score: float, workers: int, minutes: float, seed: int) -> TimeToScore:
    result = json.loads(_output(ppo_command(score, workers, minutes, seed)))
    return TimeToScore("sb3-ppo", workers, seed, score, **result)


def _output(command: list[str]) -> str:
    """The last line of the output of a command that may use all instructions and threads."""
    with environment(dict.fromkeys(kernel_environment())):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RunError(f"a run that was to be timed failed: {one_line(done.stderr)}")
    return done.stdout.strip().rpartition("\n")[2]
