"""Sends a run's records to Weights & Biases."""

from contextlib import suppress
from pathlib import Path

import wandb

from distributed_pg.config import TrainConfig
from distributed_pg.errors import UsageError, one_line
from distributed_pg.monitoring.scalars import scalars_of
from distributed_pg.storage.metrics import UpdateRecord

PROJECT = "distributed_pg"
"""The project of runs for which the user's settings name none."""
_WITH_ACCOUNT = (None, "online", "shared")
"""Values of WANDB_MODE with which records leave this machine."""


def _settings() -> wandb.Settings:
    """Send what a sink gets and nothing else; print nothing, and never wait for long."""
    return wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_stats=True,
        reinit="create_new",  # the process may have a run of its own
        init_timeout=30.0,
        finish_timeout=10.0,
    )


def check_can_send() -> None:
    """Check that the user is logged in to Weights & Biases, or wants to stay offline.

    Nothing is asked for and nothing is sent.

    Raises:
        UsageError: the user is not logged in, or has settings that wandb does not accept.
    """
    try:
        mode = wandb.setup(settings=_settings()).settings.mode
        # While a run is open, wandb.login() does nothing.
        ready = mode not in _WITH_ACCOUNT or wandb.run or wandb.login(prompt=False, verify=False)
    except (wandb.Error, ValueError) as error:
        raise UsageError(f"wandb: {one_line(error)}") from None
    if not ready:
        raise UsageError(
            "wandb: not logged in to Weights & Biases; run `wandb login` or set WANDB_API_KEY, or "
            "set WANDB_MODE=offline to keep the records in the run's folder"
        )


class WandbSink:
    """A :class:`distributed_pg.monitoring.sinks.Sink` for Weights & Biases.

    A resumed run continues the one there; updates that it repeats are not sent again.

    Args:
        run: the run's folder; wandb's files are in wandb/ below it.
        config: the settings, with ``wandb_id``.

    Raises:
        wandb.Error: the run cannot be opened there.
    """

    def __init__(self, run: Path, config: TrainConfig) -> None:
        self._run = wandb.init(
            project=wandb.setup(settings=_settings()).settings.project or PROJECT,
            dir=run,
            id=config.wandb_id,
            name=run.name,
            resume="allow",
            config=config.to_json(),
            settings=_settings(),
        )

    def write(self, record: UpdateRecord) -> None:
        """See :meth:`distributed_pg.monitoring.sinks.Sink.write`."""
        for step, scalars in scalars_of(record):
            self._run.log(scalars, step=step)

    def close(self) -> None:
        """See :meth:`distributed_pg.monitoring.sinks.Sink.close`."""
        try:
            self._run.finish()
        except OSError:  # wandb's process has died, on which its exit hook would print a traceback
            with suppress(OSError):
                wandb.teardown()
            raise
