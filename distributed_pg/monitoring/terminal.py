"""Shows a run in the terminal: a live panel with a curve, or plain lines if output is no TTY."""

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from distributed_pg.monitoring.live_display import LINE_SECONDS, LiveDisplay
from distributed_pg.monitoring.panel import RunPanel, run_text
from distributed_pg.shell import as_argument
from distributed_pg.storage.metrics import UpdateRecord


class QuietDisplay:
    """A display that shows only the log, not the run's progress."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> "QuietDisplay":
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def starting(self, place: str, episodes: int) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Print one line."""
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", soft_wrap=True)

    def updated(self, record: UpdateRecord) -> None:
        """Do nothing."""

    def refresh(self) -> None:
        """Do nothing."""

    def conclude(self, lines: Sequence[RenderableType]) -> None:
        """Do nothing: the command itself prints what scripts need."""


class TrainDisplay(LiveDisplay):
    """A :class:`distributed_pg.monitoring.display_thread.Display`: a live panel, or plain lines.

    Args:
        console: where to write.
        panel: the run's panel.
        live: show the live panel instead of occasional lines.
    """

    def __init__(self, console: Console, panel: RunPanel, *, live: bool) -> None:
        super().__init__(console, live=live)
        self._panel = panel
        self._last_line = time.monotonic()
        self._last_shown: UpdateRecord | None = None
        self._place = ""

    def starting(self, place: str, episodes: int) -> None:
        """Print where the run is; that it starts is said by the live panel."""
        self._place = place
        self.message(run_text(place, episodes))
        if not self._is_live:
            self.message("Starting the workers")

    def updated(self, record: UpdateRecord) -> None:
        """Show the run's state after an update."""
        first = self._panel.record is None
        self._panel.updated(record)
        now = time.monotonic()
        if not self._is_live and (first or now - self._last_line >= LINE_SECONDS):
            self._last_line = now
            self._last_shown = record
            self._show(self._panel.line(record))

    def _show_outcome(self) -> None:
        record = self._panel.record
        if record and self._is_live:
            self._show(self._panel)
        elif record and record is not self._last_shown:
            self._show(self._panel.line(record))

    def _drawing(self) -> RenderableType:
        if self._panel.record is None:
            return self._panel
        advice = f"Ctrl-C saves and stops; --resume {as_argument(self._place)} continues"
        return Group(self._panel, Text(advice, style="dim"))
