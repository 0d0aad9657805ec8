"""Signals that ask a command to save and stop."""

import logging
import os
import signal
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

_LOG = logging.getLogger(__name__)

_REQUESTS = ("SIGINT", "SIGTERM", "SIGBREAK")
"""Signals by which users and supervisors ask a process to end."""
_WARNINGS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Signals sent when the terminal or connection closes, or by batch systems before a time limit.
They may arrive several times and from several senders, so repeats never end the process."""
AGAIN_SECONDS = 1.0
"""A request repeated within this time counts once: ``timeout`` sends each signal twice."""


def _numbers(names: Iterable[str]) -> list[signal.Signals]:
    """The signals with these names that this system has."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


class StopSignals:
    """Makes signals ask the run to save and stop; a second request ends the process at once.

    A signal that the process was started with ignored, like SIGHUP under nohup, stays ignored.
    After a request, warnings are ignored until the process has ended, as they may still repeat.

    Args:
        message: logged when the first request is noticed.
    """

    def __init__(self, message: str) -> None:
        self._message = message
        self._asked = False
        self._reported = False
        self._requested_at: float | None = None
        self._requests = _numbers(_REQUESTS)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in (*self._requests, *_numbers(_WARNINGS)):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # The process that was asked to stop is about to end, and must not be killed at that.
            late = self._asked and number not in self._requests
            signal.signal(number, signal.SIG_IGN if late else handler)

    def asked(self) -> bool:
        """Whether the run should stop; logs a message the first time it is true."""
        if self._asked and not self._reported:
            self._reported = True
            _LOG.info(self._message)
        return self._asked

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        # Only sets flags: the display may be in the middle of a line.
        self._asked = True
        if number not in self._requests:
            return
        now = time.monotonic()
        if self._requested_at is None:
            self._requested_at = now
        elif self._reported or now - self._requested_at > AGAIN_SECONDS:
            os._exit(128 + number)
