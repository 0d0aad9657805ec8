"""The results of a sweep: groups of runs, a table and a CSV file."""

import csv
import io
import logging
from pathlib import Path

import numpy as np
from rich.table import Table

from distributed_pg.analysis.learning_curves import Curve, Group, run_curve
from distributed_pg.analysis.milestones import first_at, level_name
from distributed_pg.analysis.statistics import Array, confidence_interval, interquartile_mean
from distributed_pg.errors import RunError, writing
from distributed_pg.storage.tensor_file import write_atomically
from distributed_pg.sweep.folder import SweepFolder

_LOG = logging.getLogger(__name__)

LEVELS = (0, 10, 15)
"""Mean rewards of the last 100 episodes that the table has columns for."""
POINTS = 100
"""Rows of the CSV file per run."""
COLUMNS = ("settings", "seed", "frames", "episodes", "updates", "minutes", "running_mean")
_MEAN = "mean_100"


def sweep_groups(folder: SweepFolder) -> list[Group]:
    """The runs of a sweep that have made an update, grouped by their settings.

    A run whose files are damaged is left out, with a warning.
    """
    groups: dict[str, Group] = {}
    for trial in folder.trials:
        if folder.last_record(trial) is None:
            continue
        try:
            curve = run_curve(folder.run_of(trial), trial.name)
        except RunError as error:
            _LOG.warning(f"{error}; {trial.name} is left out")
            continue
        groups.setdefault(trial.label, Group(trial.label, [])).curves.append(curve)
    return list(groups.values())


def results_table(groups: list[Group]) -> Table:
    """A terminal table of what the seeds of each setting reached.

    Args:
        groups: the groups; settings with the highest mean at the end come first.

    Returns:
        The table: the interquartile mean of the last 100 episodes at the end, and its interval; the
        frames to each level, in the median.
    """
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("settings", overflow="fold", min_width=16)
    for name in ("seeds", "frames", "last 100", "95% interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for level in LEVELS:
        table.add_column(f"to {level_name(level)}", justify="right", no_wrap=True)
    for group in sorted(groups, key=lambda group: -float(interquartile_mean(_last(group)))):
        last = _last(group)
        low, high = confidence_interval(last)
        frames = min(int(curve.frames[-1]) for curve in group.curves)
        table.add_row(
            group.label,
            f"{len(group.curves)}",
            f"{frames / 1e6:.1f}M",
            f"{interquartile_mean(last):+.1f}",
            f"{low:+.1f} to {high:+.1f}" if len(last) > 1 else "-",
            *(_reached(group, level) for level in LEVELS),
        )
    return table


def write_csv(groups: list[Group], path: Path) -> None:
    """Write a row per run and hundredth of its frames.

    Raises:
        RunError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, _MEAN))
    for group in groups:
        for curve in group.curves:
            for index in _points(curve):
                writer.writerow(_row(group, curve, index))
    with writing(f"{path}:"):
        write_atomically(path, text.getvalue().encode())


def _row(group: Group, curve: Curve, index: int) -> tuple[object, ...]:
    record = curve.records[index]
    seed = "" if curve.config is None else curve.config.seed
    counts = record["frames"], record["episodes"], record["update"]
    minutes = f"{curve.minutes[index]:.3f}"
    means = (f"{record[name]:.3f}" for name in ("running_mean", _MEAN))
    return group.label, seed, *counts, minutes, *means


def _points(curve: Curve) -> list[int]:
    """Indices of the first records at each hundredth of the run's frames."""
    due = np.linspace(0.0, curve.frames[-1], POINTS + 1)[1:]
    return sorted(set(np.searchsorted(curve.frames, due).tolist()))


def _mean_100(curve: Curve) -> Array:
    return np.array([record[_MEAN] for record in curve.records], np.float64)


def _last(group: Group) -> Array:
    """The mean of the last 100 episodes of each run at its end, (seeds,)."""
    return np.array([_mean_100(curve)[-1] for curve in group.curves])


def _reached(group: Group, level: float) -> str:
    """When the runs reached a level, in the median; with their number if not all did."""
    found = [first_at(_mean_100(curve), level) for curve in group.curves]
    frames = sorted(
        np.inf if index is None else float(curve.frames[index])
        for curve, index in zip(group.curves, found, strict=True)
    )
    median = float(np.median(frames))
    text = f"{median / 1e6:.1f}M" if np.isfinite(median) else "-"
    reached = sum(index is not None for index in found)
    if reached in (0, len(found)):
        return text
    return f"{text} {reached}/{len(found)}"
