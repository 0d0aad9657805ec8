"""Feeds a run's records to external sinks; training never waits for them."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Protocol

from distributed_pg.errors import one_line
from distributed_pg.monitoring.reporter import Reporter
from distributed_pg.storage.metrics import UpdateRecord

_LOG = logging.getLogger(__name__)

QUEUED = 256
"""Maximum number of records queued for a sink; a sink that exceeds it is dropped."""
CLOSE_SECONDS = 15.0
"""Time that all sinks together have to finish at the end of the run."""


class Sink(Protocol):
    """Takes the record of every update.

    A sink is created, called and closed in its own thread. An exception ends the sink, not the run.
    """

    def write(self, record: UpdateRecord) -> None:
        """Write the record of an update."""

    def close(self) -> None:
        """Release all resources; also called after a failure."""


class Sinks:
    """A reporter that passes every record to sinks and to another reporter.

    Args:
        sinks: functions that create the sinks, by the name shown to the user.
        reporter: the other reporter.
    """

    def __init__(self, sinks: Mapping[str, Callable[[], Sink]], reporter: Reporter) -> None:
        self._reporter = reporter
        self._feeds = {name: _Feed(name, make) for name, make in sinks.items()}

    def __enter__(self) -> "Sinks":
        """Do nothing: the sinks have started already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the sinks finish, for :data:`CLOSE_SECONDS` at most."""
        end_by = time.monotonic() + CLOSE_SECONDS
        self._put(None)
        for name, feed in self._feeds.items():
            self._warn(name, feed.join(end_by))

    def updated(self, record: UpdateRecord) -> None:
        """Pass the record to the sinks and the reporter."""
        self._put(record)
        self._reporter.updated(record)

    def _put(self, record: UpdateRecord | None) -> None:
        failed = {name: feed.put(record) for name, feed in self._feeds.items()}
        for name, reason in failed.items():
            if self._warn(name, reason):
                del self._feeds[name]

    def _warn(self, name: str, reason: str | None) -> bool:
        if reason is not None:
            _LOG.warning(f"{name}: {reason}; the run goes on without it")
        return reason is not None


class _Feed:
    """The thread and the queue of one sink. Methods return why the sink failed, or None."""

    def __init__(self, name: str, make: Callable[[], Sink]) -> None:
        self._make = make
        self._records: queue.Queue[UpdateRecord | None] = queue.Queue(QUEUED)
        self._error: str | None = None
        # A daemon thread: a hanging sink must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, record: UpdateRecord | None) -> str | None:
        """Queue a record; None closes the sink."""
        if self._error is not None:
            return self._error
        try:
            self._records.put_nowait(record)
        except queue.Full:
            return f"hangs, with {QUEUED} updates waiting"
        return None

    def join(self, end_by: float) -> str | None:
        """Wait until the sink is closed or the time is ``end_by``."""
        self._thread.join(max(0.0, end_by - time.monotonic()))
        return "has not finished in time" if self._thread.is_alive() else self._error

    def _work(self) -> None:
        try:
            with closing(self._make()) as sink:
                while (record := self._records.get()) is not None:
                    sink.write(record)
        # A sink depends on disks, libraries and daemons outside the run. Whatever goes wrong there
        # must not affect the run; the user gets a warning.
        except Exception as error:  # noqa: BLE001
            self._error = f"{type(error).__name__}: {one_line(error)}"
