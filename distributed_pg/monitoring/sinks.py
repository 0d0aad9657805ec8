"""Hand a run's records on to whatever shows them elsewhere; training never waits for that."""

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
"""Records that may wait for a sink; one that leaves more waiting is given up."""
CLOSE_SECONDS = 5.0
"""How long all sinks together may take to finish at the end of the run."""


class Sink(Protocol):
    """Takes the record of every update.

    It is made, called and closed in a thread of its own. Whatever it raises ends it, not the run.
    """

    def write(self, record: UpdateRecord) -> None:
        """An update was made."""

    def close(self) -> None:
        """There will be no more; also called after a failure."""


class Sinks:
    """A reporter that hands every record to sinks too.

    Args:
        sinks: what makes each sink, by the name that the user knows it by.
        reporter: whom it stands before.
    """

    def __init__(self, sinks: Mapping[str, Callable[[], Sink]], reporter: Reporter) -> None:
        self._reporter = reporter
        self._feeds = {name: _Feed(name, make) for name, make in sinks.items()}

    def __enter__(self) -> "Sinks":
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the sinks finish, for :data:`CLOSE_SECONDS` at most."""
        end_by = time.monotonic() + CLOSE_SECONDS
        self._put(None)
        for name, feed in self._feeds.items():
            self._tell(name, feed.join(end_by))

    def updated(self, record: UpdateRecord) -> None:
        """Pass it on, to the sinks too."""
        self._put(record)
        self._reporter.updated(record)

    def _put(self, record: UpdateRecord | None) -> None:
        failed = {name: feed.put(record) for name, feed in self._feeds.items()}
        for name, reason in failed.items():
            if self._tell(name, reason):
                del self._feeds[name]

    def _tell(self, name: str, reason: str | None) -> bool:
        if reason is not None:
            _LOG.warning(f"{name}: {reason}; the run goes on without it")
        return reason is not None


class _Feed:
    """The thread of one sink, and what waits for it. The methods say what is wrong, or None."""

    def __init__(self, name: str, make: Callable[[], Sink]) -> None:
        self._make = make
        self._records: queue.Queue[UpdateRecord | None] = queue.Queue(QUEUED)
        self._error: str | None = None
        # A daemon: a sink that hangs does not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, record: UpdateRecord | None) -> str | None:
        """Have a record written; None: close the sink."""
        if self._error is not None:
            return self._error
        try:
            self._records.put_nowait(record)
        except queue.Full:
            return f"hangs, with {QUEUED} updates waiting"
        return None

    def join(self, end_by: float) -> str | None:
        """Wait until the sink is closed, or it is ``end_by``."""
        self._thread.join(max(0.0, end_by - time.monotonic()))
        return "has not finished in time" if self._thread.is_alive() else self._error

    def _work(self) -> None:
        try:
            with closing(self._make()) as sink:
                while (record := self._records.get()) is not None:
                    sink.write(record)
        # A sink reaches for disks, libraries and daemons that are not the run's; whatever may
        # happen to it there, it must not happen to the run. The user is told what it was.
        except Exception as error:  # noqa: BLE001
            self._error = f"{type(error).__name__}: {one_line(error)}"
