"""Shows a run in the terminal: a live panel with a curve, or plain lines if output is no TTY."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from distributed_pg.monitoring.panel import RunPanel
from distributed_pg.storage.metrics import UpdateRecord

LINE_SECONDS = 10.0
"""Minimum time between two lines."""


class QuietDisplay:
    """A display that shows only the log, not the run's progress."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> "QuietDisplay":
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def starting(self) -> None:
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


class TrainDisplay:
    """A :class:`distributed_pg.monitoring.display_thread.Display`: a live panel, or plain lines.

    Args:
        console: where to write.
        panel: the run's panel.
        live: show the live panel instead of occasional lines.
    """

    def __init__(self, console: Console, panel: RunPanel, *, live: bool) -> None:
        self._console = console
        self._panel = panel
        self._last_line = time.monotonic()
        self._last_shown: UpdateRecord | None = None
        self._concluding: Sequence[RenderableType] = ()
        self._live: Live | None = None
        if live:
            self._live = Live(
                console=console,
                get_renderable=self._live_panel,
                auto_refresh=False,
                transient=True,
            )

    def __enter__(self) -> "TrainDisplay":
        """Start drawing."""
        if self._live:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the live panel and print the final numbers, unless the run failed."""
        if self._live:
            self._live.stop()
        record = self._panel.record
        if record and kind is None and self._live:
            self._show(self._panel)
        elif record and kind is None and record is not self._last_shown:
            self._show(self._panel.line(record))
        for line in self._concluding:
            self._console.print(line, soft_wrap=True)

    def starting(self) -> None:
        """Print a line; the live panel says so by itself."""
        if not self._live:
            self.message("Starting the workers")

    def message(self, text: str) -> None:
        """Print one permanent line."""
        self._show(Text(f"{time.strftime('%H:%M:%S')} {text}"))

    def updated(self, record: UpdateRecord) -> None:
        """Show the run's state after an update."""
        first = self._panel.record is None
        self._panel.updated(record)
        now = time.monotonic()
        if not self._live and (first or now - self._last_line >= LINE_SECONDS):
            self._last_line = now
            self._last_shown = record
            self._show(self._panel.line(record))

    def refresh(self) -> None:
        """Redraw the live panel."""
        if self._live:
            self._live.refresh()

    def conclude(self, lines: Sequence[RenderableType]) -> None:
        """Set the lines to print at the end, after the panel is removed."""
        self._concluding = lines

    def _show(self, content: RenderableType) -> None:
        self._console.print(content, highlight=False, soft_wrap=not self._live)

    def _live_panel(self) -> RenderableType:
        if self._panel.record is None:
            return self._panel
        return Group(self._panel, Text("Ctrl-C saves and stops; --resume continues", style="dim"))
