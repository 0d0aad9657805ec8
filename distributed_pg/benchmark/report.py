"""Writes the benchmark's results as JSON, CSV, tables and plots."""

import csv
import itertools
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from distributed_pg.benchmark.memory import Memory
from distributed_pg.benchmark.throughput import Row, Simulation
from distributed_pg.benchmark.time_to_score import TimeToScore
from distributed_pg.errors import counted, writing
from distributed_pg.storage.tensor_file import write_atomically
from distributed_pg.system_info import cpu_model, library_versions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_COLOURS = ("#1f5fa8", "#b0532a", "#3f8f4f", "#7a5195")


def write_report(
    rows: list[Row],
    simulations: list[Simulation],
    times: list[TimeToScore],
    memory: Memory,
    rounds: int,
    seconds: float,
    out: Path,
) -> list[Path]:
    """Write ``benchmark.json``, tables as CSV files and, with matplotlib, plots.

    Args:
        rows: the measured speeds.
        simulations: the measured saturation of a learner; may be empty.
        times: the measured times to a score; may be empty.
        memory: the measured memory.
        rounds: how often each speed was measured.
        seconds: how long each measurement took, at least.
        out: the folder to write to.

    Returns:
        The written files.

    Raises:
        RunError: ``out`` cannot be written.
    """
    report = {
        "measured": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "versions": library_versions(),
        "rounds": rounds,
        "seconds": seconds,
        "rows": [asdict(row) for row in rows],
        "memory": asdict(memory),
        "simulations": [asdict(simulation) for simulation in simulations],
        "times_to_score": [asdict(run) | {"reached": run.reached} for run in times],
    }
    files = [out / "benchmark.json"]
    with writing(f"out: {out}"):
        write_atomically(files[0], (json.dumps(report, indent=2) + "\n").encode())
        files.append(_write_csv(rows, out / "benchmark.csv"))
        if simulations:
            files.append(_write_csv(simulations, out / "saturation.csv"))
        if find_spec("matplotlib"):
            files += _plots(rows, simulations, out)
    return files


def _plots(rows: list[Row], simulations: list[Simulation], out: Path) -> list[Path]:
    scaling = _plot_scaling(rows, out / "scaling.png")
    if not simulations:
        return [scaling]
    return [scaling, _plot_saturation(simulations, out / "saturation.png")]


def _write_csv(rows: Sequence[Row | Simulation], path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(rows[0])])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return path


def speed_table(rows: list[Row]) -> Table:
    """The speeds as a terminal table."""
    grid = _table("", "workers", "frames/s", "range", "episodes/h", "of limit", "speedup", "busy")
    for row in rows:
        grid.add_row(
            row.name,
            f"{row.workers}",
            f"{row.frames_per_second:.0f}",
            f"{row.slowest:.0f}-{row.fastest:.0f}",
            f"{row.episodes_per_hour:.0f}",
            f"{row.of_emulator:.3f}",
            f"{row.speedup:.2f}",
            "" if row.worker_busy is None else f"{row.worker_busy:.1%}",
        )
    return grid


def gradient_line(rows: list[Row]) -> str:
    """The size of a gradient as a line for the terminal."""
    sizes = [row.gradient_bytes for row in rows if row.gradient_bytes is not None]
    return f"a gradient sent to the learner: {max(sizes) / 1024:.0f} KiB on average"


def memory_line(memory: Memory) -> str:
    """The memory as a line for the terminal."""
    mebibytes = {name: value / 2**20 for name, value in asdict(memory).items()}
    return (
        "peak memory: worker {worker:.0f} MiB in a game of 10000 steps (an idle Ray worker: "
        "{ray_worker:.0f} MiB), learner {learner:.0f} MiB with 2 workers and batches of 100"
    ).format(**mebibytes)


def simulation_table(simulations: list[Simulation]) -> Table:
    """The simulations as a terminal table."""
    grid = _table("simulated workers", "per task", "episodes/s", "busy", "bytes a gradient")
    for simulation in simulations:
        grid.add_row(
            f"{simulation.workers}",
            f"{simulation.episodes_per_task}",
            f"{simulation.episodes_per_second:.0f}",
            f"{simulation.worker_busy:.1%}",
            f"{simulation.gradient_bytes}",
        )
    return grid


def score_table(times: list[TimeToScore]) -> Table:
    """The times to a score as a terminal table."""
    grid = _table("", "workers", "minutes", "to", "episodes", "frames", "frames/s", "mean of 100")
    for run in times:
        grid.add_row(
            run.name,
            f"{run.workers}",
            f"{run.minutes:.1f}",
            f"{run.score:g}" if run.reached else f"not {run.score:g}",
            f"{run.episodes}",
            f"{run.frames}",
            f"{run.frames_per_second:.0f}",
            "" if run.mean_100 is None else f"{run.mean_100:+.1f}",
        )
    return grid


def _table(*titles: str) -> Table:
    """A table of numbers, with names under a title that is empty."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    return table


def _plot_scaling(rows: list[Row], path: Path) -> Path:
    """Plot frames per second by number of workers, with the emulator as the limit."""
    figure, axis = _axis("workers", "emulated frames per second")
    styles = {
        "emulator": ("black", "--"),
        "rollout": ("#8a8a8a", "-."),
        "numpy": ("#c0c0c0", ":"),
        "training": ("#1f5fa8", "-"),
        "native": ("#7fa8d8", ":"),
    }
    for name, (colour, line) in styles.items():
        series = [row for row in rows if row.name == name]
        if not series:
            continue
        x = [row.workers for row in series]
        y = [row.frames_per_second for row in series]
        below = [row.frames_per_second - row.slowest for row in series]
        above = [row.fastest - row.frames_per_second for row in series]
        axis.errorbar(x, y, (below, above), color=colour, linestyle=line, marker="o", label=name)
    for name, marker in (("tutorial", "s"), ("classic", "^")):
        for row in (row for row in rows if row.name == name):
            axis.plot(row.workers, row.frames_per_second, marker, color="#b0532a", label=name)
    axis.set_ylim(bottom=0)
    return _save(figure, axis, path)


def _plot_saturation(simulations: list[Simulation], path: Path) -> Path:
    """Plot episodes per second by number of simulated workers, and the rate without waiting."""
    figure, axis = _axis("simulated workers", "episodes per second")
    sizes = sorted({simulation.episodes_per_task for simulation in simulations})
    x = sorted({simulation.workers for simulation in simulations})
    unhindered = [workers / simulations[0].episode_seconds for workers in x]
    axis.plot(x, unhindered, "--", color="black", label="if none waited")
    for size, colour in zip(sizes, itertools.cycle(_COLOURS), strict=False):
        served = [s.episodes_per_second for s in simulations if s.episodes_per_task == size]
        label = f"one learner, {counted(size, 'episode')} per task"
        axis.plot(x, served, color=colour, marker="o", label=label)
    axis.set(xscale="log", yscale="log")
    axis.set_xticks(x, [f"{workers}" for workers in x], minor=False)
    axis.yaxis.set_major_formatter("{x:.0f}")
    return _save(figure, axis, path)


def _axis(x: str, y: str) -> "tuple[Figure, Axes]":
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(color="#d9d9d9", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _save(figure: "Figure", axis: "Axes", path: Path) -> Path:
    from matplotlib.ticker import MaxNLocator

    if axis.get_xscale() == "linear":
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False)
    figure.savefig(path, dpi=120)
    return path
