"""Shows a sweep in the terminal: a live table of the running trials, or plain lines."""

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from distributed_pg.config import TrainConfig
from distributed_pg.monitoring.live_display import LINE_SECONDS, LiveDisplay
from distributed_pg.monitoring.panel import duration, mean_text
from distributed_pg.sweep.sweeper import SweepState
from distributed_pg.sweep.trial_states import TrialState

_OVER = ("done", "stopped early", "failed")
_BAR = 16
_FIRST_ESTIMATE = 0.005
"""Share of the work after which the time left is estimated."""


class SweepDisplay(LiveDisplay):
    """A :class:`distributed_pg.monitoring.display_thread.Display` of a sweep.

    Args:
        console: where to write.
        live: show a live table instead of occasional lines.
    """

    def __init__(self, console: Console, *, live: bool) -> None:
        super().__init__(console, live=live)
        self._begin = time.monotonic()
        self._done_before: float | None = None
        self._last_line = -LINE_SECONDS
        self._over: set[str] | None = None
        self._state: SweepState | None = None

    def starting(self, place: str, episodes: int) -> None:
        """Do nothing: the trials are counted as they start."""

    def updated(self, state: SweepState) -> None:
        """Take the state of the sweep; a trial that is over gets a line."""
        over = {trial.trial.name for trial in state.trials if trial.status in _OVER}
        for trial in state.trials:
            if self._over is not None and trial.trial.name in over - self._over:
                self._say_over(trial)
        if self._over is None:
            self._begin, self._done_before = time.monotonic(), _share_done(state.trials)
        self._over, self._state = over, state
        if not self._is_live and time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self.message(self._counts(state))

    def _say_over(self, state: TrialState) -> None:
        if state.status != "failed":  # the log says that already
            self.message(f"{state.trial.name}: {state.status}, {_so_far(state)}")

    def _counts(self, state: SweepState) -> str:
        count = Counter(trial.status for trial in state.trials)
        parts = [f"{count['done']} of {len(state.trials)} trials done"]
        parts += [
            f"{count[status]} {status}"
            for status in ("running", "waiting", "stopped early", "failed")
            if count[status]
        ]
        share = _share_done(state.trials)
        gained = share - (self._done_before or 0.0)
        if gained > _FIRST_ESTIMATE:
            left = (1.0 - share) / gained * (time.monotonic() - self._begin)
            parts.append(f"left {duration(left)}")
        workers = sum(trial.workers for trial in state.trials)
        return f"{', '.join(parts)} | {workers} workers on {state.cpus} CPUs"

    def _drawing(self) -> RenderableType:
        if self._state is None:
            waited = time.monotonic() - self._begin
            return Text(f"Starting Ray ({waited:.0f} s)")
        running = [trial for trial in self._state.trials if trial.status == "running"]
        height = max(1, self._console.height - 6)
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("trial", overflow="ellipsis", no_wrap=True, ratio=1)
        for name in ("", "workers", "frames", "last 100", "frames/s"):
            table.add_column(name, justify="right", no_wrap=True)
        for trial in running[:height]:
            table.add_row(*_row(trial))
        more = len(running) - height
        rest = [Text(f"and {more} more running", style="dim")] if more > 0 else []
        hint = Text("Ctrl-C saves and stops all; --resume continues", style="dim")
        return Group(Text(self._counts(self._state), style="bold"), table, *rest, hint)


def _row(state: TrialState) -> tuple[str, ...]:
    share, record = share_done(state), state.record
    filled = round(share * _BAR)
    bar = f"{'#' * filled}{'.' * (_BAR - filled)} {share:4.0%}"
    if record is None:
        return state.trial.name, bar, str(state.workers), "", "", ""
    return (
        state.trial.name,
        bar,
        str(state.workers),
        f"{record['frames'] / 1e6:.2f}M",
        mean_text(record["mean_100"]),
        f"{record['frames_per_second']:.0f}",
    )


def _so_far(state: TrialState) -> str:
    if state.record is None:
        return "without an update"
    frames, mean = state.record["frames"], mean_text(state.record["mean_100"])
    return f"{frames:,} frames, last 100 {mean}"


def _share_done(states: Sequence[TrialState]) -> float:
    return sum(map(share_done, states)) / len(states)


def share_done(state: TrialState) -> float:
    """The share of its work that a trial has done, as far as its stop conditions tell."""
    if state.status in _OVER:
        return 1.0
    if state.record is None:
        return 0.0
    config: TrainConfig = state.trial.config
    record = state.record
    shares = [
        record[name] / stop
        for name, stop in (
            ("frames", config.stop_frames),
            ("episodes", config.stop_episodes),
        )
        if stop
    ]
    return min(1.0, max(shares, default=0.0))
