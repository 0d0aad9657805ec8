"""Which settings learn best: train with each of many, several seeds each, and compare.

    python scripts/study.py --frames 4000000 --seeds 0,1 --runs runs/study --out docs/results/study

Runs side by side, one worker each, since a run is the same on any number of workers; what a run
costs is counted in emulated frames. What was stopped goes on when the same command is given again.
Writes study.csv (one row for each run and each hundredth of the frames) and, with matplotlib,
study.png.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from typing import Any

from distributed_pg.config import as_flags
from distributed_pg.curves import setting_text
from distributed_pg.run_dir import METRICS, read_metrics

Settings = dict[str, Any]

BASE: Settings = {"frame_skip": 4}
"""What is changed in the default preset for all runs: with 4 frames a step a policy that learns
shows it sooner, so that more settings can be tried."""

QUESTIONS: dict[str, list[Settings]] = {
    "learning rate": [{"learning_rate": rate} for rate in (1e-4, 1e-3, 2e-3, 5e-3)],
    "annealing": [{"anneal_episodes": None}],
    "warm-up": [{"warm_up": False}, {"warm_up": False, "learning_rate": 2e-3}],
    "baseline": [{"baseline": "mean", "learning_rate": 1e-3}],
    "standardising": [{"standardise": False}],
    "batch size": [{"batch_size": size} for size in (1, 2, 10, 20)],
    "policy lag": [{"policy_lag": lag} for lag in (0, 2)],
    "discount": [{"gamma": gamma} for gamma in (0.98, 0.995)],
    "RMSProp decay": [{"decay": decay} for decay in (0.9, 0.999)],
    "hidden units": [{"hidden_units": units} for units in (100, 400)],
    "actions": [{"actions": ("UP", "DOWN", "NOOP")}],
    "frame skip": [{"frame_skip": skip} for skip in (1, 2, 3)],
    "crop": [{"crop": crop} for crop in ((35, 195, 20, 160), (35, 195, 80, 160))],
    "16 workers": [
        {"batch_size": 16, "learning_rate": 6e-3},
        {"policy_lag": 4},
    ],
    "64 workers": [
        {"batch_size": 64, "learning_rate": 12e-3},
        {"batch_size": 16, "policy_lag": 4, "learning_rate": 6e-3},
        {"policy_lag": 16},
    ],
    "256 workers": [
        {"batch_size": 256, "learning_rate": 24e-3},
        {"batch_size": 64, "policy_lag": 4, "learning_rate": 12e-3},
        {"batch_size": 16, "policy_lag": 16, "learning_rate": 6e-3},
    ],
    "classic": [{"preset": "karpathy"}],
}
"""What is asked, and for each question the settings tried instead of the base's."""

POINTS = 100
"""Rows of study.csv for a whole run."""
COLUMNS = ("settings", "seed", "frames", "episodes", "updates", "running_mean", "mean_100")


@dataclass(frozen=True, slots=True)
class Run:
    """One of the runs to make."""

    settings: tuple[tuple[str, Any], ...]
    """What differs from the default preset and :data:`BASE`."""
    seed: int

    @property
    def label(self) -> str:
        """The settings as text; ``base`` for none."""
        texts = ((name, setting_text(value).replace(" ", "+")) for name, value in self.settings)
        return ", ".join(f"{name} {text}" for name, text in texts) or "base"

    def folder(self, runs: Path) -> Path:
        """Where the run is kept."""
        return runs / f"{self.label.replace(', ', '-').replace(' ', '_')}-seed_{self.seed}"

    def flags(self) -> list[str]:
        """The settings as arguments of ``distributed-pg train``."""
        return as_flags({"seed": self.seed, **BASE, **dict(self.settings)})


def main() -> None:
    """Make the runs that are asked for, then write what came of all that are there."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"Questions: {', '.join(QUESTIONS)}.",
    )
    parser.add_argument("--frames", type=int, default=4_000_000, help="emulated frames of a run")
    parser.add_argument("--seeds", default="0,1", help="with commas between (0,1)")
    parser.add_argument("--only", default="", help="questions, with commas between (all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time (CPUs)")
    parser.add_argument(
        "--give-up",
        type=float,
        default=-20.0,
        metavar="REWARD",
        help="end a run that has a lower running mean after half of its frames (-20)",
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
    wanted = planned(questions, seeds)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        ended = pool.map(
            lambda run: train(run, arguments.runs, arguments.frames, arguments.give_up), wanted
        )
        for run, how in zip(wanted, ended, strict=True):
            print(f"{run.label}, seed {run.seed}: {how}", flush=True)
    curves = {run: curve(run.folder(arguments.runs), arguments.frames) for run in wanted}
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_csv(curves, arguments.out / "study.csv")
    print(summary(curves))
    if find_spec("matplotlib"):
        draw(questions, curves, arguments.out / "study.png")


def planned(questions: dict[str, list[Settings]], seeds: Sequence[int]) -> list[Run]:
    """Every run once: the base and all that is asked, first with the first seed."""
    settings = [{}, *(tried for several in questions.values() for tried in several)]
    runs = [Run(tuple(tried.items()), seed) for seed in seeds for tried in settings]
    return list(dict.fromkeys(runs))


def train(run: Run, runs: Path, frames: int, give_up: float) -> str:
    """Train until ``frames`` frames are played or the run is given up; says how it ended."""
    folder = run.folder(runs)
    if not is_over(folder, frames, give_up):
        begun = (folder / "config.json").exists()
        where = ["--resume", str(folder)] if begun else ["--run-dir", str(folder), *run.flags()]
        folder.parent.mkdir(parents=True, exist_ok=True)
        arguments = ["--stop-frames", str(frames), "--num-workers", "1", "--quiet"]
        command = [sys.executable, "-m", "distributed_pg", "train", *where, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not _ends_within(process, 5.0):
            if is_over(folder, frames, give_up):
                process.send_signal(signal.SIGINT)  # it saves and ends
                process.wait()
        if not is_over(folder, frames, give_up):
            return f"failed with exit code {process.returncode}"
    last = read_metrics(folder / METRICS)[-1]
    how = "given up" if last["frames"] < frames else "done"
    return f"{how} after {last['frames']:,} frames, running mean {last['running_mean']:+.2f}"


def curve(folder: Path, frames: int) -> list[dict[str, Any]]:
    """The record at each hundredth of the frames, as far as the run came."""
    records = read_metrics(folder / METRICS)
    points, due = [], 1
    for record in records:
        if record["frames"] >= due * frames / POINTS:
            due = record["frames"] * POINTS // frames + 1
            points.append(record)
    return points


def write_csv(curves: dict[Run, list[dict[str, Any]]], path: Path) -> None:
    """One row for each run and point."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for run, points in curves.items():
            for point in points:
                numbers = (point[name] for name in ("frames", "episodes", "update"))
                means = (f"{point[name]:.3f}" for name in ("running_mean", "mean_100"))
                writer.writerow([run.label, run.seed, *numbers, *means])


def summary(curves: dict[Run, list[dict[str, Any]]]) -> str:
    """For each of the settings the median over its seeds, best first."""
    rows = []
    for label in dict.fromkeys(run.label for run in curves):
        seeds = [points for run, points in curves.items() if run.label == label and points]
        if not seeds:
            continue
        crossed = [_frames_to(points, 0.0) for points in seeds]
        known = [frames for frames in crossed if frames is not None]
        to_zero = f"{median(known) / 1e6:.1f}" if len(known) == len(crossed) else "-"
        last = median(points[-1]["mean_100"] for points in seeds)
        rows.append((last, f"{label:40} {len(seeds):5} {to_zero:>12} {last:+9.2f}"))
    head = f"{'settings':40} {'seeds':>5} {'Mframes to 0':>12} {'last 100':>9}"
    return "\n".join([head, *(text for _, text in sorted(rows, reverse=True))])


def draw(
    questions: dict[str, list[Settings]], curves: dict[Run, list[dict[str, Any]]], path: Path
) -> None:
    """A panel for each question: the mean over the seeds, and each seed faintly."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(4, len(questions))
    rows = -(-len(questions) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.2 * rows), squeeze=False, layout="constrained"
    )
    for axis in grid.flat[len(questions) :]:
        axis.set_visible(False)
    for axis, (question, several) in zip(grid.flat, questions.items(), strict=False):
        for settings in [{}, *several]:
            runs = [run for run in curves if run.settings == tuple(settings.items())]
            _draw_line(axis, runs[0].label, [curves[run] for run in runs])
        axis.set_title(question)
        axis.set_xlabel("million emulated frames")
        axis.set_ylabel("mean of the last 100 episodes")
        axis.set_ylim(-21.5, 21.5)
        axis.axhline(0.0, color="black", linewidth=0.6)
        axis.grid(color="#e2e2e2", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=7, loc="upper left")
    figure.savefig(path, dpi=110)


def _draw_line(axis: Any, label: str, seeds: list[list[dict[str, Any]]]) -> None:
    own = {"color": "black"} if label == "base" else {}
    length = min(len(points) for points in seeds)
    x = [mean(points[i]["frames"] for points in seeds) / 1e6 for i in range(length)]
    y = [mean(points[i]["mean_100"] for points in seeds) for i in range(length)]
    (line,) = axis.plot(x, y, linewidth=1.8, label=label, **own)
    for points in seeds:
        x, y = [p["frames"] / 1e6 for p in points], [p["mean_100"] for p in points]
        axis.plot(x, y, linewidth=0.6, alpha=0.4, color=line.get_color())


def is_over(folder: Path, frames: int, give_up: float) -> bool:
    """Whether a run has played its frames, or half of them and is to be given up."""
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


def _frames_to(points: list[dict[str, Any]], reward: float) -> int | None:
    return next((int(p["frames"]) for p in points if p["running_mean"] >= reward), None)


if __name__ == "__main__":
    main()
