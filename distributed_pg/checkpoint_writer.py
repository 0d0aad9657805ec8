"""Write checkpoints beside the training, which does not wait for the disk."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from distributed_pg.config import TrainConfig
from distributed_pg.run_dir import RunDir, is_best
from distributed_pg.state import TrainingState


class CheckpointWriter:
    """Writes checkpoints of a run, one at a time.

    Args:
        run_dir: where they go.
        config: the run's settings, a part of every checkpoint.
        update: the update whose checkpoint is there already.
        path: that checkpoint.
    """

    def __init__(self, run_dir: RunDir, config: TrainConfig, update: int, path: Path) -> None:
        self._run_dir = run_dir
        self._config = config
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._update = update
        self._written: Future[Path] = Future()
        self._written.set_result(path)

    @property
    def idle(self) -> bool:
        """Whether the last checkpoint is written.

        Raises:
            RunError: it could not be.
        """
        return self._written.done() and bool(self._written.result())

    def begin(self, state: TrainingState) -> None:
        """Begin to write a checkpoint of ``state``, which may be changed afterwards."""
        best = is_best(state)
        if best:
            state.progress = replace(state.progress, best_mean_100=state.progress.mean_100)
        # Published weights never change; all else is copied.
        copy = TrainingState(dict(state.policies), state.cache.copy(), state.progress)
        self._update = state.progress.update
        self._written = self._thread.submit(self._run_dir.save, self._config, copy, best=best)

    def finish(self, state: TrainingState) -> Path:
        """The checkpoint of ``state``, written by now.

        Raises:
            RunError: it could not be.
        """
        if self._update != state.progress.update or self._written.exception() is not None:
            self.begin(state)
        return self._written.result()
