"""Plots the results of scripts/study.py: study.png, and workers.png with learning time by workers.

    python scripts/study_plot.py docs/results/study --worker-speed 17500

Reads study.csv in the folder and writes the plots next to it; needs matplotlib.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from study import QUESTIONS, Question, Run, Settings, frames_to, within

Points = list[dict[str, float]]
Curves = dict[str, list[Points]]
"""The points of all runs by label."""

COLUMNS = 3
LEVELS = (-10.0, 0.0)
"""Mean rewards to measure the time to."""


def main() -> None:
    """Draw the plots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where study.csv is")
    parser.add_argument(
        "--worker-speed",
        type=float,
        required=True,
        metavar="FRAMES",
        help="emulated frames a second of a training worker, as distributed-pg benchmark says",
    )
    arguments = parser.parse_args()
    curves = read_curves(arguments.folder / "study.csv")
    known = {
        name: question
        for name, question in QUESTIONS.items()
        if any(label_of(settings) in curves for settings in question.tried)
    }
    draw_questions(known, curves, arguments.folder / "study.png")
    speed = arguments.worker_speed * 60
    times = {level: minutes_to(level, known, curves, speed) for level in LEVELS}
    for level, by_workers in times.items():
        for workers, tried in by_workers.items():
            for label, minutes in tried.items():
                numbers = " ".join(f"{number:.2f}" for number in minutes)
                print(f"mean {level:3g}, {workers:3} workers: {numbers:12} minutes  {label}")
    if len(times[0.0]) > 1:
        draw_workers(times, arguments.folder / "workers.png")


def label_of(settings: Settings) -> str:
    """The label of the settings in study.csv."""
    return Run(tuple(settings.items()), 0).label


def read_curves(path: Path) -> Curves:
    """Read the runs in study.csv, by label."""
    runs: dict[tuple[str, str], Points] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            label, seed = row.pop("settings"), row.pop("seed")
            point = {name: float(number) for name, number in row.items()}
            runs.setdefault((label, seed), []).append(point)
    curves: Curves = {}
    for (label, _), points in runs.items():
        curves.setdefault(label, []).append(points)
    return curves


def draw_questions(questions: Mapping[str, Question], curves: Curves, path: Path) -> None:
    """Draw a panel per question: the mean over the seeds, and each seed faintly."""
    rows = -(-len(questions) // COLUMNS)
    figure, grid = plt.subplots(
        rows, COLUMNS, figsize=(4.6 * COLUMNS, 3.3 * rows), squeeze=False, layout="constrained"
    )
    for axis in grid.flat[len(questions) :]:
        axis.set_visible(False)
    for axis, (name, question) in zip(grid.flat, questions.items(), strict=False):
        for label in map(label_of, ({}, *question.tried)):
            if label in curves:
                seeds = [within(points, question.frames) for points in curves[label]]
                _draw_line(axis, label, seeds)
        _dress(axis, name, "million emulated frames", "mean of the last 100 games")
        axis.set_ylim(-21.5, 21.5)
        axis.axhline(0.0, color="black", linewidth=0.6)
        axis.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)


def minutes_to(
    level: float, questions: Mapping[str, Question], curves: Curves, frames_a_minute: float
) -> dict[int, dict[str, list[float]]]:
    """Compute the training time to a mean reward. Two workers have the base settings.

    Args:
        level: mean reward of the last 100 games.
        questions: only those about a number of workers are used.
        curves: curves of all settings.
        frames_a_minute: emulated frames that a worker plays in a minute.

    Returns:
        Minutes of each run by number of workers and label, for settings that always got there.
    """
    tried = {2: Question(({},))}
    tried |= {asked.workers: asked for asked in questions.values() if asked.workers is not None}
    times: dict[int, dict[str, list[float]]] = {}
    for workers, question in tried.items():
        for label in map(label_of, question.tried):
            frames = [frames_to(points, level) for points in curves.get(label, [])]
            known = [count for count in frames if count is not None]
            if known and len(known) == len(frames):
                minutes = [count / workers / frames_a_minute for count in known]
                times.setdefault(workers, {})[label] = minutes
    return times


def draw_workers(
    times: Mapping[float, Mapping[int, Mapping[str, Sequence[float]]]], path: Path
) -> None:
    """Plot the time to each level by number of workers: a point per run, a line through the best.

    A level without a point was not reached by any settings.
    """
    figure, axis = plt.subplots(figsize=(7.0, 4.4), layout="constrained")
    for (level, runs), colour in zip(times.items(), ("tab:blue", "tab:orange"), strict=True):
        points = [(w, m) for w, tried in runs.items() for each in tried.values() for m in each]
        axis.plot(*zip(*points, strict=True), "o", markersize=4, color=colour)
        counts = list(runs)
        best = [min(map(mean, tried.values())) for tried in runs.values()]
        axis.plot(counts, best, color=colour, label=f"a mean of {level:g}")
        ideal = [best[0] * counts[0] / count for count in counts]
        axis.plot(counts, ideal, color=colour, linewidth=1.0, linestyle=":")
    axis.plot([], [], color="black", linewidth=1.0, linestyle=":", label="with as few games as two")
    counts = sorted({count for runs in times.values() for count in runs})
    _dress(axis, "", "workers", "minutes to that mean of the last 100 games")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def _draw_line(axis: Any, label: str, seeds: Sequence[Sequence[Mapping[str, float]]]) -> None:
    own = {"color": "black"} if label == label_of({}) else {}
    length = min(len(points) for points in seeds)
    x = [mean(points[i]["frames"] for points in seeds) / 1e6 for i in range(length)]
    y = [mean(points[i]["mean_100"] for points in seeds) for i in range(length)]
    (line,) = axis.plot(x, y, linewidth=1.8, label=label, **own)
    for points in seeds:
        x, y = [p["frames"] / 1e6 for p in points], [p["mean_100"] for p in points]
        axis.plot(x, y, linewidth=0.6, alpha=0.4, color=line.get_color())


def _dress(axis: Any, title: str, x: str, y: str) -> None:
    axis.set_title(title)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(color="#e2e2e2", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
