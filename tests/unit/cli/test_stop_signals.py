"""Signals that ask a command to save and stop."""

import os
import signal
from collections.abc import Iterator

import pytest

from distributed_pg.cli.stop_signals import StopSignals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    numbers = (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_the_handlers_of_before_are_back_where_nobody_asked() -> None:
    with StopSignals("Stopping") as stop:
        assert not stop.asked()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_warning_that_repeats_does_not_kill_a_process_about_to_end() -> None:
    with StopSignals("Stopping") as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.asked()
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "a request still ends it"
