"""Who is shown the lines of the log."""

import logging
from typing import NoReturn

import pytest

from distributed_pg.monitoring.log import LOGGER, is_log_handled, log_shown_by


def test_lines_are_shown_once_and_to_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    with log_shown_by(lines.append):
        logging.getLogger("distributed_pg.storage.uploader").info("one")
        logging.getLogger("distributed_pg").debug("too fine")
        logging.getLogger("another").warning("not ours")
        inner: list[str] = []
        with log_shown_by(inner.append):
            LOGGER.warning("two %s", "words")
        LOGGER.error("three")
    assert lines == ["one", "three"]
    assert inner == ["two words"]
    assert [record.message for record in caplog.records] == ["not ours"]
    assert (LOGGER.handlers, LOGGER.level, LOGGER.propagate) == before


def test_whoever_logs_goes_on_where_the_line_cannot_be_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(line: str) -> NoReturn:
        raise LookupError(line)

    with log_shown_by(fail):
        LOGGER.warning("lost")
    assert "LookupError: lost" in capsys.readouterr().err


def test_a_handler_counts_wherever_it_is_and_a_null_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    assert not is_log_handled()
    with log_shown_by(print):
        assert is_log_handled()
    monkeypatch.setattr(logging.root, "handlers", [logging.StreamHandler()])
    assert is_log_handled()
    monkeypatch.setattr(LOGGER, "propagate", False)
    assert not is_log_handled()
