"""Finds the settings that learn best: trains with each of many, on several seeds, and compares.

    python scripts/study.py --seeds 0,1 --runs runs/study --out docs/results/study

Runs are trained in parallel, with one worker each, since the number of workers does not change a
run; their cost is measured in emulated frames. Repeating the command resumes stopped runs. Writes
study.csv (one row per run and hundredth of its frames), which study_plot.py plots.
"""

import argparse
import csv
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from distributed_pg.analysis.learning_curves import setting_text
from distributed_pg.config import as_flags
from distributed_pg.own_code import own_command
from distributed_pg.storage.metrics import METRICS, read_metrics

Settings = dict[str, Any]

BASE: Settings = {"frame_skip": 4}
"""Changes to the default preset for all runs. With 4 frames per step, learning shows sooner, so
more settings can be tried."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about settings that the study answers."""

    tried: tuple[Settings, ...]
    """The settings to compare with the base."""
    frames: int = 4_000_000
    """Emulated frames per run."""
    workers: int | None = None
    """Number of workers to keep busy, for questions about that."""


def each(name: str, *values: Any) -> tuple[Settings, ...]:
    """One setting with each of its values."""
    return tuple({name: value} for value in values)


LONG = 9_800_000
QUESTIONS: dict[str, Question] = {
    "learning rate": Question(each("learning_rate", 1e-4, 1e-3, 2e-3, 5e-3)),
    "annealing": Question(each("anneal_episodes", None)),
    "warm-up": Question(
        ({"warm_up": False}, {"warm_up": False, "learning_rate": 2e-3}),
    ),
    "baseline": Question(({"baseline": "mean", "learning_rate": 1e-3},)),
    "batch size": Question(each("batch_size", 1, 2, 10, 20)),
    "policy lag": Question(each("policy_lag", 0, 2)),
    "discount": Question(each("gamma", 0.98, 0.995)),
    "RMSProp decay": Question(each("decay", 0.9, 0.999)),
    "hidden units": Question(each("hidden_units", 100, 400)),
    "crop": Question(each("crop", (35, 195, 20, 160), (35, 195, 80, 160))),
    "classic": Question(each("preset", "karpathy")),
    "actions": Question(each("actions", ("UP", "DOWN", "NOOP")), LONG),
    "frame skip": Question(each("frame_skip", 1, 2, 3), LONG),
    "16 workers": Question(
        ({"policy_lag": 4}, {"batch_size": 16, "learning_rate": 6e-3}), 12_000_000, workers=16
    ),
    "64 workers": Question(
        (
            {"batch_size": 64, "learning_rate": 12e-3},
            {"batch_size": 64, "learning_rate": 12e-3, "anneal_episodes": 32_000},
            {"batch_size": 64, "learning_rate": 6e-3, "anneal_episodes": 32_000},
            {"batch_size": 16, "policy_lag": 4},
        ),
        20_000_000,
        workers=64,
    ),
    "256 workers": Question(
        (
            {"batch_size": 64, "policy_lag": 4, "learning_rate": 6e-3},
            {"batch_size": 64, "policy_lag": 4},
            {"batch_size": 32, "policy_lag": 8, "learning_rate": 6e-3},
            {"batch_size": 16, "policy_lag": 16},
        ),
        20_000_000,
        workers=256,
    ),
}
"""All questions by name."""

POINTS = 100
"""Rows of study.csv per complete run."""
COLUMNS = ("settings", "seed", "frames", "episodes", "updates", "running_mean", "mean_100")


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the study."""

    settings: tuple[tuple[str, Any], ...]
    """Differences from the default preset and :data:`BASE`."""
    seed: int

    @property
    def label(self) -> str:
        """The settings as text; ``base`` if there are none."""
        texts = ((name, setting_text(value).replace(" ", "+")) for name, value in self.settings)
        return ", ".join(f"{name} {text}" for name, text in texts) or "base"

    def folder(self, runs: Path) -> Path:
        """The run's folder within ``runs``."""
        return runs / f"{self.label.replace(', ', '-').replace(' ', '_')}-seed_{self.seed}"

    def flags(self) -> list[str]:
        """The settings as arguments of ``distributed-pg train``."""
        return as_flags({"seed": self.seed, **BASE, **dict(self.settings)})


def main() -> None:
    """Train the requested runs, then write the results."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"Questions: {', '.join(QUESTIONS)}.",
    )
    parser.add_argument("--frames", type=int, help="emulated frames of each run (4 to 20 million)")
    parser.add_argument("--seeds", default="0,1", help="with commas between (0,1)")
    parser.add_argument("--only", default="", help="questions, with commas between (all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time (CPUs)")
    parser.add_argument(
        "--give-up",
        type=float,
        default=-19.5,
        metavar="REWARD",
        help="end a run that has a lower running mean after half of its frames (-19.5)",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/study"), help="where runs are kept")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    arguments = parser.parse_args()
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        asked = [name.strip() for name in arguments.only.split(",") if name.strip()]
        questions = {name: QUESTIONS[name] for name in asked} if asked else QUESTIONS
    except ValueError:
        parser.error(f"--seeds: {arguments.seeds!r} is not whole numbers with commas between")
    except KeyError as error:
        parser.error(f"--only: {error.args[0]!r} is not one of {', '.join(QUESTIONS)}")
    frames_of = planned(questions, seeds, arguments.frames)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        ended = pool.map(
            lambda run: train(run, arguments.runs, frames_of[run], arguments.give_up), frames_of
        )
        for run, outcome in zip(frames_of, ended, strict=True):
            print(f"{run.label}, seed {run.seed}: {outcome}", flush=True)
    curves = {run: curve(run.folder(arguments.runs), frames) for run, frames in frames_of.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_csv(curves, arguments.out / "study.csv")
    print(summary(questions, curves))


def planned(
    questions: Mapping[str, Question], seeds: Sequence[int], frames: int | None = None
) -> dict[Run, int]:
    """List all distinct runs, including the base, ordered by seed.

    Args:
        questions: the questions to answer.
        seeds: seeds to run each setting with.
        frames: emulated frames per run; None: as the questions say.

    Returns:
        The emulated frames of each run.
    """
    runs: dict[Run, int] = {}
    for seed in seeds:
        for question in questions.values():
            for settings in ({}, *question.tried):
                run = Run(tuple(settings.items()), seed)
                runs[run] = max(runs.get(run, 0), frames or question.frames)
    return runs


def train(run: Run, runs: Path, frames: int, give_up: float) -> str:
    """Train until ``frames`` frames are played or the run is given up; return how it ended."""
    folder = run.folder(runs)
    if not is_over(folder, frames, give_up):
        begun = (folder / "config.json").exists()
        target = ["--resume", str(folder)] if begun else ["--run-dir", str(folder), *run.flags()]
        folder.parent.mkdir(parents=True, exist_ok=True)
        arguments = ["--stop-frames", str(frames), "--num-workers", "1", "--quiet"]
        command = own_command("train", *target, *arguments)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not _ends_within(process, 5.0):
            if is_over(folder, frames, give_up):
                process.send_signal(signal.SIGINT)  # it saves and ends
                process.wait()
        if not is_over(folder, frames, give_up):
            return f"failed with exit code {process.returncode}"
    last = read_metrics(folder / METRICS)[-1]
    outcome = "given up" if last["frames"] < frames else "done"
    return f"{outcome} after {last['frames']:,} frames, running mean {last['running_mean']:+.2f}"


def curve(folder: Path, frames: int) -> list[dict[str, Any]]:
    """The record at each hundredth of the frames, as far as the run got."""
    points, due = [], 1
    for record in read_metrics(folder / METRICS):
        if due <= POINTS and record["frames"] >= due * frames / POINTS:
            due = record["frames"] * POINTS // frames + 1
            points.append(record)
    return points


def write_csv(curves: Mapping[Run, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Write one row per run and point."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for run, points in curves.items():
            for point in points:
                numbers = (point[name] for name in ("frames", "episodes", "update"))
                means = (f"{point[name]:.3f}" for name in ("running_mean", "mean_100"))
                writer.writerow([run.label, run.seed, *numbers, *means])


def summary(
    questions: Mapping[str, Question], curves: Mapping[Run, Sequence[Mapping[str, Any]]]
) -> str:
    """A table of each question's settings, best first by the mean over the seeds."""
    lines = [f"{'':40} {'Mframes to 0':>24} {'last 100':>24}"]
    for name, question in questions.items():
        rows = []
        for settings in ({}, *question.tried):
            runs = [run for run in curves if run.settings == tuple(settings.items())]
            seeds = [within(curves[run], question.frames) for run in runs if curves[run]]
            if seeds:
                last = [points[-1]["mean_100"] for points in seeds]
                zero = [frames_to(points, 0.0) for points in seeds]
                crossed = " ".join("-" if f is None else f"{f / 1e6:.1f}" for f in zero)
                means = " ".join(f"{reward:+.1f}" for reward in last)
                rows.append((mean(last), f"  {runs[0].label:38} {crossed:>24} {means:>24}"))
        lines += [name, *(text for _, text in sorted(rows, reverse=True))]
    return "\n".join(lines)


def within(points: Sequence[Mapping[str, Any]], frames: int) -> Sequence[Mapping[str, Any]]:
    """The points of a run up to ``frames`` frames, and at least the first."""
    return [points[0], *(point for point in points[1:] if point["frames"] <= 1.01 * frames)]


def frames_to(points: Sequence[Mapping[str, Any]], reward: float) -> int | None:
    """Frames until the mean of the last 100 episodes reached ``reward``; None if it never did."""
    return next((int(p["frames"]) for p in points if p["mean_100"] >= reward), None)


def is_over(folder: Path, frames: int, give_up: float) -> bool:
    """Whether a run has played its frames, or half of them and should be given up."""
    records = read_metrics(folder / METRICS)
    if not records:
        return False
    last = records[-1]
    return bool(
        last["frames"] >= frames
        or (last["frames"] >= frames / 2 and last["running_mean"] < give_up)
    )


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


if __name__ == "__main__":
    main()
