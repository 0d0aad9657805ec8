"""Draw a run's progress in a thread of its own; training never waits for a terminal.

A terminal may be closed or stopped with Ctrl-S, the reader of a pipe may be gone or asleep, the
disk that takes a log may be full. The run goes on.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Protocol

from distributed_pg.errors import one_line
from distributed_pg.monitoring.streams import OutputError
from distributed_pg.storage.metrics import UpdateRecord

REFRESH_SECONDS = 0.5
"""Time between two drawings of what moves by itself."""
CLOSE_SECONDS = 5.0
"""How long the terminal may take to show the last lines."""
_MOST_WAITING = 10_000
"""Lines and updates that wait for a terminal that is stopped; then the oldest go."""


class Display(Protocol):
    """Draws; all calls come from one thread."""

    def __enter__(self) -> "Display":
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show the last figures and lines, unless the run failed."""

    def message(self, text: str) -> None:
        """Show one line that stays."""

    def updated(self, record: UpdateRecord) -> None:
        """Show the run after an update."""

    def refresh(self) -> None:
        """Draw anew what moves."""

    def conclude(self, lines: Sequence[str]) -> None:
        """Have these lines come last."""


class DisplayThread:
    """A :class:`distributed_pg.training.learner.Reporter` that has a display show the run.

    Args:
        display: drawn from the time of entering to that of leaving the ``with`` block.
        warn: told in one line when the display fails, which is then given up.
    """

    def __init__(self, display: Display, warn: Callable[[str], None]) -> None:
        self._display = display
        self._warn = warn
        self._news = threading.Condition()  # guards all that follows
        self._calls: deque[Callable[[], None]] = deque(maxlen=_MOST_WAITING)
        self._ended = False
        self._outcome: tuple[
            type[BaseException] | None, BaseException | None, TracebackType | None
        ] = (None, None, None)
        # A daemon: a terminal that hangs does not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="display", daemon=True)

    def __enter__(self) -> "DisplayThread":
        """Begin to show."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show what is left to show, for :data:`CLOSE_SECONDS` at most."""
        with self._news:
            self._outcome = kind, error, trace
            self._ended = True
            self._news.notify()
        self._thread.join(CLOSE_SECONDS)

    @property
    def hangs(self) -> bool:
        """Whether the terminal has not taken the last lines in time."""
        return self._ended and self._thread.is_alive()

    def message(self, text: str) -> None:
        """Have one line shown."""
        self._put(partial(self._display.message, text))

    def updated(self, record: UpdateRecord) -> None:
        """Have the run shown after an update."""
        self._put(partial(self._display.updated, record))

    def conclude(self, lines: Sequence[str]) -> None:
        """Have these lines come last."""
        self._put(partial(self._display.conclude, lines))

    def _put(self, call: Callable[[], None]) -> None:
        with self._news:
            self._calls.append(call)
            self._news.notify()

    def _work(self) -> None:
        try:
            self._display.__enter__()
            while self._draw():
                pass
            self._display.__exit__(*self._outcome)
        except OutputError as error:
            self._give_up(str(error))
        # What a terminal's library may raise is not the run's concern; the user is told of it.
        except Exception as error:  # noqa: BLE001
            self._give_up(f"the display failed ({type(error).__name__}: {one_line(error)})")

    def _draw(self) -> bool:
        """Draw what has come within :data:`REFRESH_SECONDS`; whether to go on."""
        refresh_at = time.monotonic() + REFRESH_SECONDS
        while (left := refresh_at - time.monotonic()) > 0:
            with self._news:
                self._news.wait_for(lambda: self._calls or self._ended, left)
                if not self._calls and self._ended:
                    return False
                call = self._calls.popleft() if self._calls else None
            if call is not None:
                call()
        self._display.refresh()
        return True

    def _give_up(self, reason: str) -> None:
        with self._news:
            ended, outcome = self._ended, self._outcome
            self._calls = deque(maxlen=0)
        self._warn(reason if ended else f"{reason}; training goes on without it")
        with suppress(OutputError):
            self._display.__exit__(*outcome)  # gives back what it took of the terminal
