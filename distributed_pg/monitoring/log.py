"""Where the lines go that the package writes to its log: what the user should know.

The package logs as libraries do, to loggers below ``distributed_pg`` and without a handler. The
command line shows the lines, and so does the progress of :func:`distributed_pg.train`.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("distributed_pg")


class _LineHandler(logging.Handler):
    """Hands each line on."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(record.getMessage())


@contextmanager
def log_shown_by(show: Callable[[str], None]) -> Iterator[None]:
    """Have ``show`` called with each line of the log, and nobody else, within the ``with`` block.

    It may be called by any thread.
    """
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    LOGGER.handlers[:] = [_LineHandler(show)]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.handlers[:], level, LOGGER.propagate = before
        LOGGER.setLevel(level)


def is_log_handled() -> bool:
    """Whether the program that uses this package says where its log goes."""
    logger: logging.Logger | None = LOGGER
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False
