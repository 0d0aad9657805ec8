"""Draws a run's progress in a separate thread; training never waits for a terminal.

A terminal may be closed or stopped with Ctrl-S, the reader of a pipe may exit or hang, and the disk
with the log may be full. The run continues.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from rich.console import RenderableType

from distributed_pg.errors import one_line
from distributed_pg.monitoring.streams import OutputError

State = TypeVar("State", contravariant=True)

_Exit = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

REFRESH_SECONDS = 0.5
"""Time between two refreshes of the live parts."""
CLOSE_SECONDS = 5.0
"""Time the terminal has to show the last lines."""
_MOST_WAITING = 10_000
"""Lines and updates queued for a stopped terminal; beyond that the oldest are dropped."""


class Display(Protocol[State]):
    """Draws a run, or a sweep of runs; all calls come from one thread."""

    def __enter__(self) -> "Display[State]":
        """Start drawing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show the final numbers and lines, unless the run failed."""

    def starting(self, place: str, episodes: int) -> None:
        """Show that the settings are accepted and the workers are being started.

        Args:
            place: the run's folder or URI.
            episodes: those that the run has learned from before.
        """

    def message(self, text: str) -> None:
        """Print one permanent line."""

    def updated(self, state: State) -> None:
        """Show the newest state: for a run, the record of an update."""

    def refresh(self) -> None:
        """Redraw the live parts."""

    def conclude(self, lines: Sequence[RenderableType]) -> None:
        """Set the lines to print at the end."""


class _WarningsOnly:
    """Replaces a display that failed: what the user must know goes where warnings go."""

    def __init__(self, warn: Callable[[RenderableType], None]) -> None:
        self._warn = warn
        self._concluding: Sequence[RenderableType] = ()

    def __enter__(self) -> "_WarningsOnly":
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._concluding:
            self._warn(line)

    def starting(self, place: str, episodes: int) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        self._warn(text)

    def updated(self, state: object) -> None:
        """Do nothing."""

    def refresh(self) -> None:
        """Do nothing."""

    def conclude(self, lines: Sequence[RenderableType]) -> None:
        self._concluding = lines


class DisplayThread(Generic[State]):
    """A :class:`distributed_pg.monitoring.reporter.Reporter` that runs a display in a thread.

    Args:
        display: draws while the ``with`` block runs.
        warn: called with one line when the display fails and is closed, and from then on with the
            log and the last lines.
    """

    def __init__(self, display: Display[State], warn: Callable[[RenderableType], None]) -> None:
        self._display = display
        self._warn = warn
        self._changed = threading.Condition()  # guards the fields below
        self._calls: deque[Callable[[Display[State]], None]] = deque(maxlen=_MOST_WAITING)
        self._call: Callable[[Display[State]], None] | None = None  # the one being drawn
        self._concluding: Sequence[RenderableType] = ()
        self._ended = False
        self._outcome: _Exit = (None, None, None)
        # A daemon thread: a hanging terminal must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="display", daemon=True)

    def __enter__(self) -> "DisplayThread[State]":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show what is still queued, for :data:`CLOSE_SECONDS` at most."""
        with self._changed:
            self._outcome = kind, error, trace
            self._ended = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    @property
    def hangs(self) -> bool:
        """Whether the terminal failed to show the last lines in time."""
        return self._ended and self._thread.is_alive()

    def starting(self, place: str, episodes: int) -> None:
        """Queue that the workers are being started."""
        self._put(lambda display: display.starting(place, episodes))

    def message(self, text: str) -> None:
        """Queue one permanent line."""
        self._put(lambda display: display.message(text))

    def updated(self, state: State) -> None:
        """Queue an update."""
        self._put(lambda display: display.updated(state))

    def conclude(self, lines: Sequence[RenderableType]) -> None:
        """Queue the lines to print at the end."""
        self._concluding = lines
        self._put(lambda display: display.conclude(lines))

    def _put(self, call: Callable[[Display[State]], None]) -> None:
        with self._changed:
            self._calls.append(call)
            self._changed.notify()

    def _work(self) -> None:
        try:
            self._show()
        except OutputError as error:
            self._give_up(str(error))
        # Whatever a terminal library raises must not end the run; the user gets a warning.
        except Exception as error:  # noqa: BLE001
            self._give_up(f"the display failed ({type(error).__name__}: {one_line(error)})")

    def _show(self) -> None:
        self._display.__enter__()
        while self._draw():
            pass
        self._display.__exit__(*self._outcome)

    def _draw(self) -> bool:
        """Draw what arrives within :data:`REFRESH_SECONDS`; return whether to continue."""
        refresh_at = time.monotonic() + REFRESH_SECONDS
        while (left := refresh_at - time.monotonic()) > 0:
            with self._changed:
                self._changed.wait_for(lambda: self._calls or self._ended, left)
                if not self._calls and self._ended:
                    return False
                call = self._calls.popleft() if self._calls else None
                self._call = call
            if call is not None:
                call(self._display)
        self._display.refresh()
        return True

    def _give_up(self, reason: str) -> None:
        with self._changed:
            ended, outcome = self._ended, self._outcome
        self._warn(reason if ended else f"{reason}; training goes on without it")
        with suppress(OutputError):
            self._display.__exit__(*outcome)  # restores the terminal
        self._display = _WarningsOnly(self._warn)
        # What could not be shown is said now.
        self._display.conclude(self._concluding)
        if self._call is not None:
            self._call(self._display)
        self._show()
