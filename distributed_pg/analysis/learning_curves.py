"""Learning curves: read from the metrics of runs, grouped and averaged."""

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distributed_pg.analysis.statistics import confidence_interval, interquartile_mean
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError, one_line
from distributed_pg.storage.metrics import METRICS, read_metrics
from distributed_pg.storage.object_store import RemoteRun, is_uri
from distributed_pg.storage.run_dir import RunDir, parse_config
from distributed_pg.sweep.folder import SweepFolder, is_sweep

Array = NDArray[np.float64]
By: TypeAlias = Literal["episodes", "minutes", "frames"]
"""The x axis of a learning curve."""

_NUMBERS = ("episodes", "frames", "wall_seconds", "running_mean")
_MOST_POINTS = 1000
_MOST = 1e18
"""Larger than any number in a run's metrics."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A run's learning curve. The arrays have one entry per update, and at least one."""

    name: str
    """Name of the run's folder or file."""
    config: TrainConfig | None
    """None if only the metrics are known."""
    records: list[dict[str, Any]]
    """Lines of metrics.jsonl, see :class:`distributed_pg.storage.metrics.UpdateRecord`."""
    episodes: Array
    minutes: Array
    frames: Array
    running_mean: Array
    update_mean: Array
    """Mean reward of each update's episodes."""

    def against(self, by: By) -> Array:
        """The curve's x values."""
        return {"episodes": self.episodes, "minutes": self.minutes, "frames": self.frames}[by]

    def column(self, name: str) -> Array | None:
        """A column of the metrics as float64 (updates,); None unless every update has it."""
        values = [record.get(name) for record in self.records]
        return np.array(values, np.float64) if all(map(_is_number, values)) else None


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ only in the seed and in settings that do not affect the result."""

    label: str
    curves: list[Curve]

    def mean(self, by: By) -> tuple[Array, Array, Array, Array]:
        """The interquartile mean of the runs' running means, with its 95% confidence interval.

        It ends where the shortest run ends: beyond that it would cover fewer runs.

        Returns:
            x, and the mean and the ends of the interval there; float64 (n,) each. They are empty if
            a run ends before another begins, as they may after one update each.
        """
        grid = np.unique(np.concatenate([curve.against(by) for curve in self.curves]))
        begin = max(curve.against(by)[0] for curve in self.curves)
        end = min(curve.against(by)[-1] for curve in self.curves)
        grid = grid[(grid >= begin) & (grid <= end)]
        if len(grid) > _MOST_POINTS:  # more than a picture has pixels would only take time
            grid = grid[np.linspace(0, len(grid) - 1, _MOST_POINTS).astype(int)]
        means = [np.interp(grid, curve.against(by), curve.running_mean) for curve in self.curves]
        values = np.array(means)
        return grid, interquartile_mean(values), *confidence_interval(values)


@contextmanager
def local_run(
    location: str, *names: str, lost: Callable[[str], None] | None = None
) -> Iterator[Path]:
    """Yield the run's folder, or a temporary copy of it if the run is stored at a URI.

    Args:
        location: a folder or a URI.
        names: the files to copy; all of them if none is named.
        lost: called with a message for each damaged or missing checkpoint at the URI; None raises
            an error instead.

    Raises:
        UsageError: there is no run.
        RunError: the run cannot be read.
    """
    if not is_uri(location):
        yield RunDir.open(Path(location)).path
        return
    with tempfile.TemporaryDirectory() as folder:
        RemoteRun(location).fetch(Path(folder), lambda stored: names or sorted(stored), lost)
        yield Path(folder)


def load_curves(location: str) -> list[Curve]:
    """Load the learning curves of all runs at a location.

    Args:
        location: as in :func:`load_curve`, or the folder of a sweep, which stands for its runs.

    Raises:
        UsageError: there is nothing at ``location``.
        RunError: a run cannot be read or is damaged, or there are no updates yet.
    """
    if not is_sweep(location):
        return [load_curve(location)]
    curves = sweep_curves(SweepFolder.open(Path(location)), f"{run_name(location)}/")
    if not curves:
        raise RunError(f"{location}: no trial of this sweep has made an update yet")
    return list(curves.values())


def sweep_curves(folder: SweepFolder, prefix: str = "") -> dict[str, Curve]:
    """The curves of the trials that have made an update, by the name of the trial.

    Args:
        folder: the sweep's folder.
        prefix: what the curves' names have before the trial's name.

    Raises:
        RunError: a run's files cannot be read, or are damaged.
    """
    return {
        trial.name: run_curve(folder.run_of(trial), prefix + trial.name)
        for trial in folder.trials
        if _has_updates(folder.run_of(trial) / METRICS)
    }


def load_curve(location: str) -> Curve:
    """Load a learning curve.

    Args:
        location: a run's folder or URI, or a metrics file, whose curve then has no config.

    Raises:
        UsageError: there is nothing at ``location``.
        RunError: the run cannot be read, is damaged, or has no updates yet.
    """
    if not is_uri(location):
        path = Path(location)
        if not path.exists():
            raise UsageError(f"{path}: No such file or directory")
        if path.is_file():
            name = run_name(str(path.parent)) if path.name == METRICS else path.stem
            return read_curve(path, name, None)
    with local_run(location, "config.json", METRICS) as folder:
        return run_curve(folder, run_name(location))


def run_name(location: str) -> str:
    """The last component of a run's folder or URI."""
    path = location.rstrip("/") if is_uri(location) else str(Path(location).resolve())
    return path.rpartition("/")[2] or path


def run_curve(folder: Path, name: str) -> Curve:
    """Read the curve of the run in a folder and call it ``name``.

    Raises:
        RunError: a file cannot be read or is damaged, or there are no updates yet.
    """
    path = folder / "config.json"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    curve = read_curve(folder / METRICS, name, parse_config(text, str(path)))
    if curve.column("mean_100") is None:
        raise RunError(f"{folder / METRICS}: mean_100 is not a number in every line")
    return curve


def read_curve(path: Path, name: str, config: TrainConfig | None) -> Curve:
    """Read the curve in a metrics file.

    Args:
        path: the metrics file.
        name: name of the curve.
        config: settings of the run, if known.

    Raises:
        RunError: the file cannot be read, is damaged or has no updates.
    """
    try:
        records = read_metrics(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not a run's metrics, or damaged ({one_line(error)})") from None
    if not records:
        raise RunError(f"{path}: contains no updates")
    for line, record in enumerate(records, 1):
        fault = _fault(record, previous=records[line - 2] if line > 1 else None)
        if fault:
            raise RunError(f"{path}: line {line}: {fault}")
    columns = {key: np.array([record[key] for record in records], float) for key in _NUMBERS}
    return Curve(
        name,
        config,
        records,
        episodes=columns["episodes"],
        minutes=columns["wall_seconds"] / 60,
        frames=columns["frames"],
        running_mean=columns["running_mean"],
        update_mean=np.array([np.mean(record["rewards"]) for record in records]),
    )


def group_curves(curves: list[Curve], labels: tuple[str, ...] = ()) -> list[Group]:
    """Group the curves of runs that differ only in the seed.

    Args:
        curves: the curves; groups are ordered by their first curve.
        labels: one per group; if empty, the settings that differ between groups label them.

    Raises:
        UsageError: the number of labels is not the number of groups.
    """
    groups: dict[object, list[Curve]] = {}
    for number, curve in enumerate(curves):
        settings = _settings(curve)
        groups.setdefault(tuple(settings.items()) or number, []).append(curve)
    members = list(groups.values())
    if not labels:
        return [Group(_label(group, members), group) for group in members]
    if len(labels) != len(members):
        names = "; ".join(" ".join(curve.name for curve in group) for group in members)
        raise UsageError(
            f"label: {len(labels)} given, {len(members)} needed, one per group of runs: {names}"
        )
    return [Group(label, group) for label, group in zip(labels, members, strict=True)]


def repeated(groups: list[Group]) -> list[tuple[str, str]]:
    """Pairs of names of runs in the same group with the same seed."""
    pairs = (pair for group in groups for pair in itertools.combinations(group.curves, 2))
    return [
        (a.name, b.name)
        for a, b in pairs
        if a.config and b.config and a.config.seed == b.config.seed
    ]


def setting_text(value: Any) -> str:
    """A setting's value as written on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(setting_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(curve: Curve) -> dict[str, Any]:
    """The settings besides the seed that the curve depends on; empty if unknown."""
    if curve.config is None:
        return {}
    return {
        field.name: getattr(curve.config, field.name)
        for field in dataclasses.fields(curve.config)
        if not field.metadata.get("may_change") and field.name not in ("seed", "preset")
    }


def _label(members: list[Curve], groups: list[list[Curve]]) -> str:
    settings = _settings(members[0])
    known = [known for known in (_settings(group[0]) for group in groups) if known]
    differing = [name for name in settings if any(s[name] != settings[name] for s in known)]
    if differing:
        return ", ".join(f"{name} {setting_text(settings[name])}" for name in differing)
    return members[0].name if len(members) == 1 else f"{len(members)} runs"


def _has_updates(path: Path) -> bool:
    """Whether a metrics file has a complete line, damaged or not."""
    try:
        return b"\n" in path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None


def _is_number(value: Any) -> bool:
    # False for NaN, too.
    return type(value) in (int, float) and abs(value) < _MOST


def _fault(record: Any, previous: dict[str, Any] | None) -> str | None:
    """Describe what is wrong with a line of the metrics; None if nothing is."""
    if not isinstance(record, dict):
        return "not a JSON object"
    for name in _NUMBERS:
        if not _is_number(record.get(name)):
            return f"{name} is not a number"
    rewards = record.get("rewards")
    if not isinstance(rewards, list) or not rewards or not all(map(_is_number, rewards)):
        return "rewards is not a list of numbers"
    if previous is not None and not record["episodes"] > previous["episodes"]:
        return "episodes is not greater than in the line before"
    return None
