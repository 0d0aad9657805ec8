"""A self-contained HTML page about a sweep (needs the [report] extra)."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from distributed_pg.analysis.learning_curves import Curve, Group, run_name
from distributed_pg.analysis.report.html_chart import Chart, group_chart, overlaid
from distributed_pg.analysis.report.run_page import train_command
from distributed_pg.analysis.report.shared import (
    Figure,
    Setting,
    duration,
    rendered,
    settings,
    settings_to_give,
)
from distributed_pg.analysis.sweep_results import results_table, sweep_groups
from distributed_pg.errors import RunError, UsageError, writing
from distributed_pg.presets import as_flags
from distributed_pg.shell import as_argument
from distributed_pg.storage.tensor_file import write_atomically
from distributed_pg.sweep.folder import SweepFolder
from distributed_pg.sweep.plan import SweepPlan, value_text
from distributed_pg.sweep.trial_states import TrialState, TrialStates

LOOKS = 7
"""Number of colours and line styles; at most this many settings share a chart."""
_Y_RANGE = (-21.0, 21.0)
_TITLE = "Running mean of the reward"


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial as text."""

    seed: str
    label: str
    frames: str
    mean: str
    """Mean reward of the last 100 episodes."""
    status: str
    checksum: str


def write_sweep_report(path: Path, out: Path) -> None:
    """Write an HTML page about a sweep, whether all of its trials are over or not.

    Args:
        path: the sweep's folder.
        out: the HTML file.

    Raises:
        UsageError: there is no sweep, or no folder for the page.
        RunError: the sweep cannot be read or has no updates yet, or the page cannot be written.
    """
    if not out.parent.is_dir():
        raise UsageError(f"out: there is no folder {out.parent}")
    page = render(SweepFolder.open(path))
    with writing(f"out: {out}"):
        write_atomically(out, page.encode())


def render(folder: SweepFolder) -> str:
    """Render the page.

    Raises:
        RunError: a run of the sweep cannot be read, or none has made an update yet.
    """
    plan, states = folder.plan, TrialStates(folder).all()
    groups = sweep_groups(folder)
    if not groups:
        raise RunError(f"{folder.path}: no trial of this sweep has made an update yet")
    columns, rows = _results(groups)
    order = [row[0] for row in rows]
    groups.sort(key=lambda group: order.index(group.label))
    curves = {curve.name: curve for group in groups for curve in group.curves}
    varied = {"preset", "seed", *plan.grid}
    first = states[0].trial.config
    return rendered(
        "sweep.html.j2",
        name=run_name(str(folder.path)),
        plan=plan,
        seeds=seeds_text(plan.seeds),
        settings_count=len(states) // len(plan.seeds),
        statuses=_statuses(states),
        figures=_figures(rows, states, list(curves.values())),
        charts=_charts(groups),
        looks=LOOKS,
        columns=columns,
        rows=rows,
        trials=[_trial_row(state, curves.get(state.trial.name)) for state in states],
        varied=[
            *(
                Setting(name, ", ".join(map(value_text, plan.grid[name])), True)
                for name in plan.grid
            ),
            Setting("seed", seeds_text(plan.seeds), True),
        ],
        computing=[s for s in settings(plan.base, may_change=False) if s.name not in varied],
        running=settings(plan.base, may_change=True),
        unfinished=any(state.status == "waiting" for state in states),
        resume=_resume_command(folder),
        command=sweep_command(plan),
        trial_name=states[0].trial.name,
        trial_command=train_command(first),
    )


def sweep_command(plan: SweepPlan) -> str:
    """The command line that starts a sweep with this plan."""
    grid = [f"{name}={','.join(map(value_text, values))}" for name, values in plan.grid.items()]
    sets = [argument for text in grid for argument in ("--set", text)]
    command = ["distributed-pg", "sweep", "--seeds", seeds_text(plan.seeds), *sets]
    return shlex.join([*command, *as_flags(settings_to_give(plan.base))])


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds as ``--seeds`` takes them: ``0-4,7``."""
    runs: list[list[int]] = [[seeds[0]]]
    for before, seed in pairwise(seeds):
        if seed == before + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _resume_command(folder: SweepFolder) -> str:
    address = folder.plan.base.address
    flag = "" if address is None else f" --address {address}"
    return f"distributed-pg sweep --resume {as_argument(folder.path)}{flag}"


def _results(groups: list[Group]) -> tuple[list[str], list[list[str]]]:
    """The headings and rows of the table that the terminal shows."""
    table = results_table(groups)
    rows = zip(*(map(str, column.cells) for column in table.columns), strict=True)
    return [str(column.header) for column in table.columns], [list(row) for row in rows]


def _statuses(states: list[TrialState]) -> str:
    count = Counter(_status(state) for state in states)
    return ", ".join(f"{number} {status}" for status, number in count.most_common())


def _status(state: TrialState) -> str:
    return "unfinished" if state.status == "waiting" else state.status


def _figures(rows: list[list[str]], states: list[TrialState], curves: list[Curve]) -> list[Figure]:
    best = dict(zip(("label", "seeds", "frames", "mean", "interval"), rows[0], strict=False))
    done = sum(state.status == "done" for state in states)
    frames = sum(float(curve.frames[-1]) for curve in curves)
    minutes = sum(float(curve.minutes[-1]) for curve in curves)
    return [
        Figure("Best setting", best["mean"], f"{best['label']}; 95% interval {best['interval']}"),
        Figure("Trials done", f"{done}", f"of {len(states)}"),
        Figure("Settings", f"{len(rows)}", f"with up to {max(int(row[1]) for row in rows)} seeds"),
        Figure("Frames", f"{frames / 1e6:,.1f}M", "emulated, in all trials together"),
        Figure("Training time", duration(minutes), "of all trials, one after another"),
    ]


def _charts(groups: list[Group]) -> list[Chart]:
    """The best settings together, then each one with its runs; one chart if there is one."""
    right = max(float(curve.frames[-1]) for group in groups for curve in group.curves)
    charts = [
        group_chart(group, min(number, LOOKS), right, _Y_RANGE)
        for number, group in enumerate(groups)
    ]
    if len(charts) == 1:
        return [replace(charts[0], title=_TITLE)]
    return [overlaid(_TITLE, charts[:LOOKS]), *charts]


def _trial_row(state: TrialState, curve: Curve | None) -> TrialRow:
    trial = state.trial
    record = None if curve is None else curve.records[-1]
    return TrialRow(
        f"{trial.config.seed}",
        trial.label,
        "-" if record is None else f"{record['frames']:,}",
        "-" if record is None else f"{record['mean_100']:+.1f}",
        _status(state),
        "-" if record is None else str(record.get("weights_checksum", "unknown")),
    )
