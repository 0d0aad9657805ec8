"""Presents a run's numbers and curve as a panel, or its numbers as one line."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from distributed_pg.config import TrainConfig
from distributed_pg.errors import counted
from distributed_pg.monitoring.braille import curve
from distributed_pg.storage.metrics import METRICS, UpdateRecord, read_metrics

_COUNTING = "(counting)"
_MOST = 21
"""The highest reward of a game; the lowest is its negative."""
_CURVE_WIDTH, _CURVE_HEIGHT = 56, 7  # odd, so that 0 has its own line
_CURVE_STYLE = "green"  # legible on light and on dark


class RunPanel:
    """The run's state after the last update, as a rich renderable.

    Args:
        config: the run's settings, for the stop conditions.
        history: running means of earlier updates if the run is resumed.
    """

    def __init__(self, config: TrainConfig, history: Sequence[float] = ()) -> None:
        self._config = config
        self._means = list(history)
        self._begin = time.monotonic()
        self.record: UpdateRecord | None = None
        """Record of the last update; None before the first."""

    def updated(self, record: UpdateRecord) -> None:
        """Take the record of an update."""
        self.record = record
        if record.running_mean is not None:
            self._means.append(record.running_mean)

    def line(self, record: UpdateRecord) -> str:
        """The run's state after an update as one line, with the time of day."""
        return (
            f"{time.strftime('%H:%M:%S')} update {record.update} episodes {record.episodes} "
            f"running mean {mean_text(record.running_mean)} last 100 {mean_text(record.mean_100)} "
            f"best {mean_text(record.best_reward)} | {record.episodes_per_hour:.0f} episodes/h "
            f"{record.frames_per_second:.0f} frames/s workers {record.workers} "
            f"left {self._left(record)}"
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> list[RenderableType]:
        """The numbers and the curve, or what the run is waiting for."""
        if self.record is None:
            waited = time.monotonic() - self._begin
            return [Text(f"Starting the workers and playing the first batch ({waited:.0f} s)")]
        width = min(_CURVE_WIDTH, options.max_width - 6)
        braille = console.encoding.startswith("utf")
        return [Group(self._table(self.record), "", *self._curve(max(1, width), braille))]

    def _table(self, record: UpdateRecord) -> Table:
        table = Table.grid(padding=(0, 3))
        episodes_per_hour = f"{record.episodes_per_hour:.0f}"
        frames_per_second = f"{record.frames_per_second:.0f}"
        workers = f"{record.workers}, {record.worker_busy:.1%} busy"
        trained = duration(record.wall_seconds)
        rows = (
            ("episodes", f"{record.episodes}", "updates", f"{record.update}"),
            (
                "running mean",
                mean_text(record.running_mean),
                "last 100",
                mean_text(record.mean_100),
            ),
            ("best", mean_text(record.best_reward), "workers", workers),
            ("episodes/hour", episodes_per_hour, "frames/s", frames_per_second),
            ("trained", trained, "left", self._left(record)),
        )
        for left_name, left, right_name, right in rows:
            table.add_row(
                Text(left_name, style="dim"),
                Text(left, style="bold"),
                Text(right_name, style="dim"),
                Text(right, style="bold"),
            )
        return table

    def _curve(self, width: int, braille: bool) -> list[Text]:
        """The running mean over the whole run, from losing to winning every point."""
        if not self._means:
            return []
        lines = curve(self._means, width, _CURVE_HEIGHT, -_MOST, _MOST, braille=braille)
        labels = [""] * _CURVE_HEIGHT
        labels[0], labels[_CURVE_HEIGHT // 2], labels[-1] = f"{_MOST:+d}", "0", f"{-_MOST:+d}"
        return [
            Text.assemble((f"{label:>3} ", "dim"), (line, _CURVE_STYLE))
            for label, line in zip(labels, lines, strict=True)
        ]

    def _left(self, record: UpdateRecord) -> str:
        """Time left to the nearest stop condition if it can be estimated, else a description."""
        config, seconds = self._config, []
        if config.stop_episodes is not None and record.episodes_per_hour > 0:
            missing = max(0, config.stop_episodes - record.episodes)
            seconds.append(missing / record.episodes_per_hour * 3600)
        if config.stop_frames is not None and record.frames_per_second > 0:
            missing = max(0, config.stop_frames - record.frames)
            seconds.append(missing / record.frames_per_second)
        if config.stop_minutes is not None:
            seconds.append(max(0.0, 60 * config.stop_minutes - record.wall_seconds))
        if seconds:
            return duration(min(seconds))
        if config.stop_reward is not None:
            return f"until last 100 is {config.stop_reward:+g}"
        if config.stop_plateau is not None:
            return f"until no gain in {counted(config.stop_plateau, 'episode')}"
        return "no stop condition"


def past_means(config: TrainConfig) -> list[float]:
    """The running means of a run resumed from a local folder; empty for any other run."""
    if config.resume is None:
        return []
    try:
        records = read_metrics(Path(config.location or "") / METRICS)
        means = [record["running_mean"] for record in records]
        return [float(mean) for mean in means if mean is not None]
    except (OSError, ValueError, TypeError, LookupError):
        return []  # the run reports damaged lines; the curve just starts afresh


def run_text(place: str, episodes: int) -> str:
    """Where a run is that is about to begin, or to go on after some episodes."""
    if episodes:
        return f"Resuming {place} after {counted(episodes, 'episode')}"
    return f"New run: {place}"


def mean_text(value: float | None) -> str:
    """A mean reward as text, with its sign."""
    return _COUNTING if value is None else f"{value:+.2f}"


def duration(seconds: float) -> str:
    """A time as text, H:MM:SS."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
