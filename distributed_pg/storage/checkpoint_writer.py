"""Writes a run's metrics and checkpoints; training waits for the disk only at the end."""

import logging
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from distributed_pg.algo.state import WINDOW, Progress, TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError
from distributed_pg.storage.metrics import UpdateRecord
from distributed_pg.storage.object_store import TakenOverError
from distributed_pg.storage.run_dir import RunDir

_LOG = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes to a run's folder, and handles failures as ``disk_errors`` says.

    Args:
        run_dir: the run's folder.
        config: the run's settings, stored in every checkpoint.
        update: the update of the latest existing checkpoint.
        path: that checkpoint.
    """

    def __init__(
        self,
        run_dir: RunDir,
        config: TrainConfig,
        update: int,
        path: Path,
    ) -> None:
        self._run_dir = run_dir
        self._config = config
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._update = update
        self._written: Future[Path] = Future()
        self._written.set_result(path)
        self._is_due = False
        self._failing: set[str] = set()

    def record(self, record: UpdateRecord) -> None:
        """Add a line to the metrics.

        Raises:
            RunError: the line cannot be written, and ``disk_errors`` is ``"stop"``.
        """
        try:
            self._run_dir.append(record)
        except RunError as error:
            self._failed("metrics", error)
        else:
            self._worked("metrics")

    def updated(self, state: TrainingState) -> None:
        """Start writing a checkpoint if one is due and the previous one is finished.

        Args:
            state: the state after the update.

        Raises:
            TakenOverError: another process has taken over the run.
            RunError: the previous one could not be written, and ``disk_errors`` is ``"stop"``.
        """
        self._run_dir.check_ours()
        self._is_due |= state.progress.update % self._config.checkpoint_every == 0
        if not self._written.done():
            return
        error = self._written.exception()
        if error is None:
            self._worked("checkpoints")
        elif isinstance(error, RunError):
            self._failed("checkpoints", error)
        else:
            raise error
        self._note_best(state)
        if self._is_due:
            self._begin(state)

    def finish(self, state: TrainingState) -> Path:
        """Write the checkpoint of ``state`` if needed, and wait for it.

        Args:
            state: the final state.

        Returns:
            The file of its checkpoint.

        Raises:
            RunError: the checkpoint cannot be written.
        """
        if self._update != state.progress.update or self._written.exception() is not None:
            self._begin(state)
        path = self._written.result()
        self._note_best(state)
        return path

    def wait(self) -> None:
        """Wait until no checkpoint is being written; a failure is handled later."""
        futures.wait([self._written])

    def _begin(self, state: TrainingState) -> None:
        self._is_due = False
        # A shallow copy suffices: each update makes new arrays.
        copy = TrainingState(dict(state.policies), state.cache, state.progress)
        self._update = state.progress.update
        self._written = self._thread.submit(self._save, copy)

    def _save(self, state: TrainingState) -> Path:
        best_mean = self._run_dir.best_mean
        best = is_best(state.progress, best_mean)
        mean = state.progress.mean_100 if best else best_mean
        state.progress = replace(state.progress, best_mean_100=mean)
        return self._run_dir.save(self._config, state, best=best)

    def _note_best(self, state: TrainingState) -> None:
        """Make the state refer to the best checkpoint that is actually written."""
        best_mean = self._run_dir.best_mean
        if state.progress.best_mean_100 != best_mean:
            state.progress = replace(state.progress, best_mean_100=best_mean)

    def _failed(self, what: str, error: RunError) -> None:
        if self._config.disk_errors == "stop" or isinstance(error, TakenOverError):
            raise error
        if what not in self._failing:
            self._failing.add(what)
            _LOG.warning(f"{error}; training goes on without {what}")

    def _worked(self, what: str) -> None:
        if what in self._failing:
            self._failing.remove(what)
            _LOG.info(f"{what} can be written again")


def is_best(progress: Progress, best_mean: float | None) -> bool:
    """Whether the mean of the last 100 episodes is higher than at the best checkpoint.

    Args:
        progress: the run so far.
        best_mean: the mean at the best checkpoint; None: there is none.
    """
    mean = progress.mean_100
    if mean is None or progress.episodes < WINDOW:
        return False
    return best_mean is None or mean > best_mean
