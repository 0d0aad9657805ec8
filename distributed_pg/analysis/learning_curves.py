"""Learning curves: read from the runs' metrics, put into groups and averaged."""

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

from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError, one_line
from distributed_pg.storage.metrics import METRICS, read_metrics
from distributed_pg.storage.object_store import RemoteRun, is_uri
from distributed_pg.storage.run_dir import RunDir, parse_config

Array = NDArray[np.float64]
By: TypeAlias = Literal["episodes", "minutes", "frames"]
"""What a curve can be drawn against."""

_NUMBERS = ("episodes", "frames", "wall_seconds", "running_mean")
_MOST = 1e18
"""More than any number in a run's metrics can be."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A run as it learned: one entry of each array an update, at least one."""

    name: str
    """Of the run's folder or file."""
    config: TrainConfig | None
    """None if the metrics stand alone."""
    records: list[dict[str, Any]]
    """The lines of metrics.jsonl, see :class:`distributed_pg.storage.run_dir.UpdateRecord`."""
    episodes: Array
    minutes: Array
    frames: Array
    running_mean: Array
    update_mean: Array
    """Mean reward of each update's episodes."""

    def against(self, by: By) -> Array:
        """The x values of that name."""
        return {"episodes": self.episodes, "minutes": self.minutes, "frames": self.frames}[by]

    def column(self, name: str) -> Array | None:
        """Other numbers of the metrics; None if not all updates have it."""
        values = [record.get(name) for record in self.records]
        return np.array(values, np.float64) if all(map(_is_number, values)) else None


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of the same settings, but for the seed and what does not change what a run computes."""

    label: str
    curves: list[Curve]

    def mean(self, by: By) -> tuple[Array, Array, Array, Array]:
        """x, and there the mean, the lowest and the highest of the runs' running means.

        It ends where the first of the runs does: further on it would be the mean of others.
        """
        grid = np.unique(np.concatenate([curve.against(by) for curve in self.curves]))
        begin = max(curve.against(by)[0] for curve in self.curves)
        end = min(curve.against(by)[-1] for curve in self.curves)
        grid = grid[(grid >= begin) & (grid <= end)]
        means = [np.interp(grid, curve.against(by), curve.running_mean) for curve in self.curves]
        return grid, np.mean(means, axis=0), np.min(means, axis=0), np.max(means, axis=0)


@contextmanager
def local_run(
    location: str, *names: str, lost: Callable[[str], None] | None = None
) -> Iterator[Path]:
    """The run's folder; if it is kept at a URI, a copy that goes with the ``with`` block.

    Args:
        location: a folder or a URI.
        names: which of its files are wanted at least; all if none is named.
        lost: told of checkpoints at the URI that are damaged or gone; None: that is an error.

    Raises:
        UsageError: there is no run.
        RunError: it cannot be read.
    """
    if not is_uri(location):
        yield RunDir.open(Path(location)).path
        return
    with tempfile.TemporaryDirectory() as folder:
        RemoteRun(location).fetch(Path(folder), lambda all_names: names or sorted(all_names), lost)
        yield Path(folder)


def load_curve(location: str) -> Curve:
    """The curve of a run's folder or URI, or, without its settings, of a file of metrics.

    Raises:
        UsageError: there is nothing.
        RunError: it cannot be read, is damaged, or there is no update in it yet.
    """
    if not is_uri(location):
        path = Path(location)
        if not path.exists():
            raise UsageError(f"{path}: No such file or directory")
        if path.is_file():
            of_run = path.name == METRICS
            return read_curve(path, run_name(str(path.parent)) if of_run else path.stem, None)
    with local_run(location, "config.json", METRICS) as folder:
        return run_curve(folder, run_name(location))


def run_name(location: str) -> str:
    """The last part of a run's folder or URI."""
    path = location.rstrip("/") if is_uri(location) else str(Path(location).resolve())
    return path.rpartition("/")[2] or path


def run_curve(folder: Path, name: str) -> Curve:
    """The curve of the run in a folder.

    Raises:
        RunError: a file cannot be read or is damaged, or there is no update yet.
    """
    path = folder / "config.json"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    return read_curve(folder / METRICS, name, parse_config(text, str(path)))


def read_curve(path: Path, name: str, config: TrainConfig | None) -> Curve:
    """The curve in a file of metrics.

    Raises:
        RunError: it cannot be read, is damaged or has no update.
    """
    try:
        records = read_metrics(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not a run's metrics, or damaged ({one_line(error)})") from None
    if not records:
        raise RunError(f"{path}: there is no update in it")
    for line, record in enumerate(records, 1):
        fault = _fault(record, records[line - 2] if line > 1 else None)
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
    """The curves by what their runs compute, in the order in which each group's first one came.

    Groups are labelled by ``labels`` if given, else by the settings that differ between them.

    Raises:
        UsageError: there are not as many labels as groups.
    """
    groups: dict[object, list[Curve]] = {}
    for number, curve in enumerate(curves):
        settings = _settings(curve)
        groups.setdefault(tuple(settings.items()) or number, []).append(curve)
    members = list(groups.values())
    if not labels:
        return [Group(_label(of_one, members), of_one) for of_one in members]
    if len(labels) != len(members):
        names = "; ".join(" ".join(curve.name for curve in of_one) for of_one in members)
        raise UsageError(
            f"label: {len(labels)} given, but the groups of runs are {len(members)}: {names}"
        )
    return [Group(label, of_one) for label, of_one in zip(labels, members, strict=True)]


def repeated(groups: list[Group]) -> list[tuple[str, str]]:
    """Names of runs that are in one group and have the same seed."""
    pairs = (pair for group in groups for pair in itertools.combinations(group.curves, 2))
    return [
        (a.name, b.name)
        for a, b in pairs
        if a.config and b.config and a.config.seed == b.config.seed
    ]


def setting_text(value: Any) -> str:
    """A setting's value as one writes it on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(setting_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(curve: Curve) -> dict[str, Any]:
    """What the curve depends on besides the seed; nothing if that is not known."""
    if curve.config is None:
        return {}
    return {
        field.name: getattr(curve.config, field.name)
        for field in dataclasses.fields(curve.config)
        if not field.metadata.get("may_change") and field.name not in ("seed", "preset")
    }


def _label(members: list[Curve], groups: list[list[Curve]]) -> str:
    mine, others = _settings(members[0]), [_settings(group[0]) for group in groups]
    known = [settings for settings in others if settings]
    differing = [name for name in mine if any(s[name] != mine[name] for s in known)]
    if differing:
        return ", ".join(f"{name} {setting_text(mine[name])}" for name in differing)
    return members[0].name if len(members) == 1 else f"{len(members)} runs"


def _is_number(value: Any) -> bool:
    # "Not below" holds for a NaN as well.
    return type(value) in (int, float) and abs(value) < _MOST


def _fault(record: Any, before: dict[str, Any] | None) -> str | None:
    """What is wrong with a line of the metrics."""
    if not isinstance(record, dict):
        return "not a JSON object"
    for name in _NUMBERS:
        if not _is_number(record.get(name)):
            return f"{name} is not a number"
    rewards = record.get("rewards")
    if not isinstance(rewards, list) or not rewards or not all(map(_is_number, rewards)):
        return "rewards is not a list of numbers"
    if before is not None and not record["episodes"] > before["episodes"]:
        return "episodes are not more than in the line before"
    return None
