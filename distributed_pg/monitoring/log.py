"""Routes the package's log, which holds what the user should know.

Like other libraries, the package logs to loggers below ``distributed_pg`` without a handler. The
command line shows the lines, and so does the progress display of :func:`distributed_pg.train`.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("distributed_pg")


class _LineHandler(logging.Handler):
    """Passes each line to a function."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._show(record.getMessage())
        # As all handlers do: what is logged may not end the thread that logs it.
        except Exception:  # noqa: BLE001
            self.handleError(record)


@contextmanager
def log_shown_by(show: Callable[[str], None]) -> Iterator[None]:
    """Send each log line to ``show``, and to no other handler, within the ``with`` block.

    Args:
        show: called with each line, from any thread.
    """
    previous = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    LOGGER.handlers[:] = [_LineHandler(show)]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.handlers[:], level, LOGGER.propagate = previous
        LOGGER.setLevel(level)


def is_log_handled() -> bool:
    """Whether the program that uses this package has configured a handler for its log."""
    logger: logging.Logger | None = LOGGER
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False
