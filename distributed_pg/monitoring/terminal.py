"""Shows a run in the terminal: a live panel with a curve, or plain lines where there is none."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from distributed_pg.monitoring.panel import RunPanel
from distributed_pg.storage.metrics import UpdateRecord

LINE_SECONDS = 10.0
"""Time between two log lines at least."""


class QuietDisplay:
    """A display that shows only what the user should know, not how the run goes."""

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
    """A :class:`distributed_pg.monitoring.display_thread.Display`: a live panel, or log lines.

    Args:
        console: where to write.
        panel: what is shown of the run.
        live: whether the panel moves; else there is a line now and then.
    """

    def __init__(self, console: Console, panel: RunPanel, *, live: bool) -> None:
        self._console = console
        self._panel = panel
        self._last_line = time.monotonic()
        self._concluding: Sequence[str] = ()
        self._live: Live | None = None
        if live:
            drawn = self._live_panel
            self._live = Live(
                console=console, get_renderable=drawn, auto_refresh=False, transient=True
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
        if self._panel.record and kind is None:
            self._show(self._panel if self._live else self._panel.line(self._panel.record))
        for line in self._concluding:
            self._console.print(line, soft_wrap=True)

    def message(self, text: str) -> None:
        """Show one line that stays."""
        self._show(Text(f"{time.strftime('%H:%M:%S')} {text}"))

    def updated(self, record: UpdateRecord) -> None:
        """Show the run after an update."""
        first = self._panel.record is None
        self._panel.updated(record)
        now = time.monotonic()
        if not self._live and (first or now - self._last_line >= LINE_SECONDS):
            self._last_line = now
            self._show(self._panel.line(record))

    def refresh(self) -> None:
        """Bring the live panel up to date."""
        if self._live:
            self._live.refresh()

    def conclude(self, lines: Sequence[str]) -> None:
        """Have these lines come last, when the panel is taken away."""
        self._concluding = lines

    def _show(self, what: RenderableType) -> None:
        self._console.print(what, highlight=False, soft_wrap=not self._live)

    def _live_panel(self) -> RenderableType:
        if self._panel.record is None:
            return self._panel
        return Group(self._panel, Text("Ctrl-C saves and stops; --resume goes on", style="dim"))
