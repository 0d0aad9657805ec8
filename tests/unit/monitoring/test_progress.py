"""What a program sees of a run unless it says otherwise."""

import logging
import re

import pytest
from records import record_of

from distributed_pg.config import TrainConfig
from distributed_pg.monitoring.display_thread import DisplayThread
from distributed_pg.monitoring.log import LOGGER
from distributed_pg.monitoring.progress import shown
from distributed_pg.monitoring.reporter import NullReporter, Reporter
from distributed_pg.storage.metrics import UpdateRecord

CONFIG = TrainConfig(stop_episodes=100)
TIME = r"\d\d:\d\d:\d\d "


def run(
    monkeypatch: pytest.MonkeyPatch, reporter: Reporter | None = None, *handlers: logging.Handler
) -> None:
    """A run of one update, in a program with these handlers; pytest has one of its own."""
    monkeypatch.setattr(logging.root, "handlers", list(handlers))
    with shown("auto" if reporter is None else reporter, CONFIG) as watching:
        if isinstance(watching, DisplayThread):
            watching.starting("runs/one", 0)
        LOGGER.warning("a worker is lost")
        watching.updated(record_of(1, episodes_per_hour=3600.0))


def test_lines_of_the_run_and_of_its_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch)
    printed = capsys.readouterr()
    assert printed.err == ""
    place, first, warning, update = printed.out.splitlines()
    assert re.fullmatch(TIME + "New run: runs/one", place)
    assert re.fullmatch(TIME + "Starting the workers", first)
    assert re.fullmatch(TIME + "a worker is lost", warning)
    assert re.match(TIME + "update 1 episodes 1 running mean ", update)
    assert update.endswith(" left 0:01:39")


def test_the_last_update_is_shown_at_the_end_unless_it_was_already(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with shown("auto", CONFIG) as watching:
        for update in (1, 2, 3):
            watching.updated(record_of(update))
    first, last = capsys.readouterr().out.splitlines()
    assert " update 1 " in first
    assert " update 3 " in last


def test_a_program_that_handles_the_log_is_not_shown_it_twice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: records.append(record.getMessage()))
    run(monkeypatch, None, handler)
    assert records == ["a worker is lost"]
    assert "lost" not in capsys.readouterr().out


def test_another_reporter_takes_its_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Mine:
        def updated(self, record: UpdateRecord) -> None:
            seen.append(record.update)

    run(monkeypatch, Mine())
    assert seen == [1]
    with shown(None, CONFIG) as nobody:
        assert isinstance(nobody, NullReporter)
        LOGGER.warning("unheard")
    assert capsys.readouterr() == ("", "")
