"""Shows a run in the terminal: a live panel with a curve, or plain lines where there is none."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from distributed_pg.config import TrainConfig
from distributed_pg.monitoring.braille import curve
from distributed_pg.storage.metrics import UpdateRecord

LINE_SECONDS = 10.0
"""Time between two log lines at least."""
_COUNTING = "(counting)"
_MOST = 21
"""The highest reward of a game; the lowest is its negative."""
_CURVE_WIDTH, _CURVE_HEIGHT = 56, 7  # odd: 0 has a line of its own
_CURVE_STYLE = "green"  # legible on light and on dark


class QuietDisplay:
    """A reporter that shows only what the user should know, not how the run goes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> "QuietDisplay":
        """Nothing to begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def message(self, text: str) -> None:
        """Show one line."""
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", soft_wrap=True)

    def updated(self, record: UpdateRecord) -> None:
        """Show nothing."""

    def refresh(self) -> None:
        """Nothing moves."""

    def conclude(self, lines: Sequence[str]) -> None:
        """Show nothing; what matters to a script the command prints itself."""


class TrainDisplay:
    """A :class:`distributed_pg.training.learner.Reporter`: live on a terminal, log lines elsewhere.

    Whoever uses it calls :meth:`refresh` from time to time, from the same thread.

    Args:
        console: where to write.
        config: the run's settings, for the stop conditions.
        history: running means of the updates before, where a run is resumed.
    """

    def __init__(
        self, console: Console, config: TrainConfig, history: Sequence[float] = ()
    ) -> None:
        self._console = console
        self._config = config
        self._means = list(history)
        self._record: UpdateRecord | None = None
        self._begin = self._last_line = time.monotonic()
        self._concluding: Sequence[str] = ()
        self._braille = console.encoding.startswith("utf")
        live = console.is_terminal and not console.is_dumb_terminal
        self._live = (
            Live(console=console, get_renderable=self._panel, auto_refresh=False, transient=True)
            if live
            else None
        )

    def __enter__(self) -> "TrainDisplay":
        """Begin to show."""
        if self._live:
            self._live.start(refresh=True)
        else:
            self.message("Starting the workers")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the live panel away and leave the last figures on the screen."""
        if self._live:
            self._live.stop()
        if self._record and kind is None:
            self._show(self._panel() if self._live else self._line(self._record))
        for line in self._concluding:
            self._console.print(line, soft_wrap=True)

    def message(self, text: str) -> None:
        """Show one line that stays."""
        self._show(Text(f"{time.strftime('%H:%M:%S')} {text}"))

    def updated(self, record: UpdateRecord) -> None:
        """Show the run after an update."""
        first = self._record is None
        self._record = record
        if record.running_mean is not None:
            self._means.append(record.running_mean)
        now = time.monotonic()
        if not self._live and (first or now - self._last_line >= LINE_SECONDS):
            self._last_line = now
            self._show(self._line(record))

    def refresh(self) -> None:
        """Bring the live panel up to date."""
        if self._live:
            self._live.refresh()

    def conclude(self, lines: Sequence[str]) -> None:
        """Have these lines come last, when the panel is taken away."""
        self._concluding = lines

    def _show(self, what: RenderableType) -> None:
        self._console.print(what, highlight=False, soft_wrap=not self._live)

    def _line(self, record: UpdateRecord) -> str:
        return (
            f"{time.strftime('%H:%M:%S')} update {record.update} episodes {record.episodes} "
            f"running mean {_reward(record.running_mean)} last 100 {_reward(record.mean_100)} "
            f"best {_reward(record.best_reward)} | {record.episodes_per_hour:.0f} episodes/h "
            f"{record.frames_per_second:.0f} frames/s workers {record.workers} "
            f"left {self._left(record)}"
        )

    def _panel(self) -> RenderableType:
        record = self._record
        if record is None:
            waited = time.monotonic() - self._begin
            return Text(f"Starting the workers and playing the first batch ({waited:.0f} s)")
        table = Table.grid(padding=(0, 3))
        episodes_per_hour = f"{record.episodes_per_hour:.0f}"
        frames_per_second = f"{record.frames_per_second:.0f}"
        workers = f"{record.workers}, {record.worker_busy:.1%} busy"
        trained = _duration(record.wall_seconds)
        rows = (
            ("episodes", f"{record.episodes}", "updates", f"{record.update}"),
            ("running mean", _reward(record.running_mean), "last 100", _reward(record.mean_100)),
            ("best", _reward(record.best_reward), "workers", workers),
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
        shown: list[RenderableType] = [table, "", *self._curve()]
        if self._live and self._live.is_started:
            shown.append(Text("Ctrl-C saves and stops; --resume goes on", style="dim"))
        return Group(*shown)

    def _curve(self) -> list[Text]:
        """The running mean over the whole run, from losing to winning every point."""
        if not self._means:
            return []
        width = min(_CURVE_WIDTH, self._console.width - 6)
        size = max(1, width), _CURVE_HEIGHT
        lines = curve(self._means, *size, -_MOST, _MOST, braille=self._braille)
        labels = [""] * _CURVE_HEIGHT
        labels[0], labels[_CURVE_HEIGHT // 2], labels[-1] = f"{_MOST:+d}", "0", f"{-_MOST:+d}"
        return [
            Text.assemble((f"{label:>3} ", "dim"), (line, _CURVE_STYLE))
            for label, line in zip(labels, lines, strict=True)
        ]

    def _left(self, record: UpdateRecord) -> str:
        """What is left to the stop condition that is nearest, as far as it can be told."""
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
            return _duration(min(seconds))
        if config.stop_reward is not None:
            return f"until last 100 is {config.stop_reward:+g}"
        return "no stop condition"


def _reward(value: float | None) -> str:
    return _COUNTING if value is None else f"{value:+.2f}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
