"""Sinks fail and hang; training does not notice, and the user is told once."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from records import record_of

from distributed_pg.monitoring import sinks
from distributed_pg.monitoring.sinks import QUEUED, Sink, Sinks
from distributed_pg.storage.metrics import UpdateRecord


class Reporter:
    def __init__(self) -> None:
        self.updates: list[int] = []

    def updated(self, record: UpdateRecord) -> None:
        self.updates.append(record.update)


class Memory:
    """A sink that remembers, and does what it is told at an update and at its end."""

    def __init__(
        self,
        at: int | None = None,
        do: Callable[[], object] = lambda: None,
        at_end: Callable[[], object] = lambda: None,
    ) -> None:
        self.written: list[int] = []
        self.closed = 0
        self._at, self._do, self._at_end = at, do, at_end

    def write(self, record: UpdateRecord) -> None:
        if record.update == self._at:
            self._do()
        self.written.append(record.update)

    def close(self) -> None:
        self.closed += 1
        self._at_end()


def fail() -> None:
    raise OSError(28, "No space left on device")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def feed(sink: Callable[[], Sink], updates: int = 3) -> None:
    """Give records to ``sink``, and to a reporter and a sink that are well and get them all."""
    well, reporter = Memory(), Reporter()
    with Sinks({"This": sink, "That": lambda: well}, reporter) as both:
        for update in range(1, updates + 1):
            both.updated(record_of(update))
            wait_for(lambda update=update: len(well.written) == update)  # type: ignore[misc]
    assert reporter.updates == list(range(1, updates + 1))
    assert well.written == reporter.updates
    assert well.closed == 1


def test_every_record_arrives_in_order_before_the_end(told: list[str]) -> None:
    memory = Memory()
    feed(lambda: memory, updates=100)
    assert memory.written == list(range(1, 101))
    assert memory.closed == 1
    assert told == []


SAID = ["This: OSError: [Errno 28] No space left on device; the run goes on without it"]


def test_a_sink_that_fails_is_told_once_and_left(told: list[str]) -> None:
    memory = Memory(at=2, do=fail)
    feed(lambda: memory, updates=50)
    assert told == SAID
    assert memory.written == [1]
    assert memory.closed == 1


def test_a_sink_that_fails_in_the_last_update_or_at_its_end_is_told(told: list[str]) -> None:
    for memory in (Memory(at=3, do=fail), Memory(at_end=fail)):
        feed(lambda memory=memory: memory)  # type: ignore[misc]
        assert told == SAID
        told.clear()


def test_a_sink_that_cannot_be_made_is_told(told: list[str]) -> None:
    def make() -> Sink:
        raise LookupError("no such thing")

    feed(make)
    assert told == ["This: LookupError: no such thing; the run goes on without it"]


def test_a_sink_that_hangs_is_told_once_and_not_waited_for(told: list[str]) -> None:
    go_on = threading.Event()
    memory = Memory(at=1, do=go_on.wait)
    begin = time.monotonic()
    feed(lambda: memory, updates=QUEUED + 50)
    assert time.monotonic() - begin < sinks.CLOSE_SECONDS
    assert told == [f"This: hangs, with {QUEUED} updates waiting; the run goes on without it"]
    assert memory.written == []
    go_on.set()


@pytest.mark.parametrize("fault", ["in write", "in close", "while it is made"])
def test_the_end_waits_for_a_sink_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch, fault: str, told: list[str]
) -> None:
    monkeypatch.setattr(sinks, "CLOSE_SECONDS", 0.3)
    go_on = threading.Event()

    def make() -> Sink:
        if fault == "while it is made":
            go_on.wait()
        return Memory(at=2, do=go_on.wait) if fault == "in write" else Memory(at_end=go_on.wait)

    begin = time.monotonic()
    feed(make)
    assert 0.3 <= time.monotonic() - begin < 5.0
    assert told == ["This: has not finished in time; the run goes on without it"]
    go_on.set()


HANG = """
import threading
from distributed_pg.monitoring import sinks
from distributed_pg.monitoring.reporter import NullReporter
sinks.CLOSE_SECONDS = 0.1
with sinks.Sinks({"Hangs": threading.Event().wait}, NullReporter()):
    print("trained")
"""


def test_a_process_with_a_sink_that_hangs_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANG], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("trained\n", "")
