"""``distributed-pg plot``."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from distributed_pg._extras import need_extra
from distributed_pg.cli.console import console
from distributed_pg.errors import UsageError
from distributed_pg.fields import Range, check_fields

if TYPE_CHECKING:
    from rich.table import Table

    from distributed_pg.analysis.learning_curves import Curve, Group

_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class PlotArgs:
    """Plot the learning curves of runs and sweeps, or the weights of a policy's hidden units.

    Runs with the same settings except for the seed form a group: a thin line per run, a thick line
    for their interquartile mean, and a band for its 95% confidence interval. Both end with the
    shortest run. A table lists when each run reached its milestones, or, of a sweep, what the runs
    of each setting reached.

    Raises:
        UsageError: a value is not allowed.
    """

    out: Path
    """The figure to write: .png, .svg or .pdf."""
    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ()
    """Folders or URIs of runs, folders of sweeps, or files in the format of metrics.jsonl."""
    by: tuple[Literal["episodes", "minutes", "frames"], ...] = ("episodes", "minutes")
    """Horizontal axes to plot the reward against, one panel each."""
    label: tuple[str, ...] = ()
    """Names of the groups, in the order of their first runs. Default: the settings that differ."""
    title: str = ""
    """Title above the figure."""
    weights: str | None = None
    """Plot the weights of the hidden units instead, from a checkpoint, a run's folder or URI, or
    pretrained."""
    units: Annotated[int, Range(1, 100_000)] = 40
    """Number of units to plot with weights: those with the largest outgoing weights."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        if self.out.suffix.lower() not in _SUFFIXES:
            raise UsageError(f"out: {self.out} does not end in one of {', '.join(_SUFFIXES)}")
        if not self.runs and self.weights is None:
            raise UsageError("plot: name at least one run, or --weights CHECKPOINT")
        if self.runs and self.weights is not None:
            raise UsageError("weights: goes without runs; draw one or the other")
        if not self.by or len(set(self.by)) < len(self.by):
            raise UsageError("by: name one or more of episodes, minutes, frames, each once")


def run(args: PlotArgs) -> int:
    """Plot, print the milestones and write the figure; return the exit code."""
    need_extra("plot", "matplotlib")
    from distributed_pg.analysis.plot import curves_figure, weights_figure, write_figure

    screen = console()
    if args.weights is None:
        from distributed_pg.analysis.learning_curves import group_curves, load_curves, repeated

        places = {location: load_curves(location) for location in args.runs}
        groups = group_curves([curve for here in args.runs for curve in places[here]], args.label)
        for names in repeated(groups):
            warning = f"{' and '.join(names)} have the same settings and seed; the mean counts both"
            console(stderr=True).print(warning, soft_wrap=True)
        write_figure(curves_figure(groups, args.by, args.title), args.out)
        for table in _tables(args, places, groups):
            screen.print(table)
    else:
        from distributed_pg.analysis.hidden_units import strongest_units
        from distributed_pg.storage.policy_file import load_policy

        units = strongest_units(load_policy(args.weights), args.units)
        write_figure(weights_figure(units, args.title), args.out)
    screen.print(f"Wrote {args.out}", soft_wrap=True)
    return 0


def _tables(
    args: PlotArgs, places: "dict[str, list[Curve]]", groups: "list[Group]"
) -> "Iterator[Table]":
    """The results of the groups with runs of sweeps, and the milestones of the other runs."""
    from distributed_pg.analysis.milestones import milestones_table
    from distributed_pg.analysis.sweep_results import results_table
    from distributed_pg.sweep.folder import is_sweep

    swept = {id(curve) for here in places if is_sweep(here) for curve in places[here]}
    compared = [group for group in groups if any(id(curve) in swept for curve in group.curves)]
    if compared:
        yield results_table(compared)
    alone = [curve for here in args.runs if not is_sweep(here) for curve in places[here]]
    if alone:
        yield milestones_table(alone, groups)
