"""The default display for runs started by a program or a notebook."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

from rich.console import Console

from distributed_pg.config import TrainConfig
from distributed_pg.monitoring.display_thread import Display, DisplayThread
from distributed_pg.monitoring.log import is_log_handled, log_shown_by
from distributed_pg.monitoring.notebook import NotebookDisplay, in_notebook
from distributed_pg.monitoring.panel import RunPanel, past_means
from distributed_pg.monitoring.reporter import NullReporter, Reporter
from distributed_pg.monitoring.terminal import TrainDisplay
from distributed_pg.storage.metrics import UpdateRecord


@contextmanager
def shown(reporter: Reporter | Literal["auto"] | None, config: TrainConfig) -> Iterator[Reporter]:
    """Yield the reporter of a run within the ``with`` block.

    Args:
        reporter: a reporter, ``"auto"`` or None, which shows nothing. ``"auto"`` shows a table in a
            notebook and occasional lines on standard output elsewhere. It includes the package's
            log unless the program handles it.
        config: the run's settings.
    """
    if reporter != "auto":
        yield reporter or NullReporter()
        return
    panel = RunPanel(config, past_means(config))
    display: Display[UpdateRecord] = (
        NotebookDisplay(panel)
        if in_notebook()
        else TrainDisplay(_console(stderr=False), panel, live=False)
    )
    with (
        DisplayThread(display, _console(stderr=True).print) as thread,
        nullcontext() if is_log_handled() else log_shown_by(thread.message),
    ):
        yield thread


def _console(*, stderr: bool) -> Console:
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
