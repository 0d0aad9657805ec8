"""Train: the run's folder, Ray, its workers and the learner put together."""

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distributed_pg._extras import need_extra
from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.monitoring.progress import shown
from distributed_pg.monitoring.reporter import Callback, Reporter
from distributed_pg.monitoring.sinks import Sink, Sinks
from distributed_pg.runtime.health import RayLostError, RayStartError
from distributed_pg.runtime.prometheus import RayMetrics
from distributed_pg.runtime.ray_worker_pool import RayWorkerPool
from distributed_pg.runtime.session import RaySession, ray_session
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.open_run import open_run, saved_config
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.system_info import changed_versions
from distributed_pg.training.learner import Learner, stop_reached
from distributed_pg.training.resuming import check_same_run, held_conditions, nothing_left, repairs

_LOG = logging.getLogger(__name__)

MOST_RAY_DEATHS = 3
"""How often our own Ray may die without an update in between before the run gives up."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run, or this part of it, ended."""

    run_dir: Path
    checkpoint: Path
    """The checkpoint written at the end."""
    weights_checksum: str
    progress: Progress
    """Updates, episodes, frames and rewards of the whole run."""
    interrupted: bool
    """Whether it was asked to stop before a stop condition held."""


def train(
    config: TrainConfig,
    reporter: Reporter | Literal["auto"] | None = "auto",
    stop_asked: Callable[[], bool] = lambda: False,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a policy until a stop condition holds, a callback or ``stop_asked()`` says so.

    A KeyboardInterrupt, as of a notebook's stop button, ends the run as well: it is saved, and the
    result is returned.

    Args:
        config: the settings. With ``resume`` the run there goes on; see :func:`resume_config`.
        reporter: shows the run. ``"auto"``: a table in a notebook, and elsewhere lines on standard
            output; None: nothing is shown.
        stop_asked: asked at least twice a second. The last update is kept, later episodes are
            played again when the run is resumed.
        callbacks: each is called with the :class:`~distributed_pg.storage.metrics.UpdateRecord` of
            every update; the run ends after an update of which one of them returns True.

    Returns:
        What was reached. The same config gives the same ``weights_checksum`` on any number of
        workers, whatever was lost on the way.

    Raises:
        UsageError: the run directory holds a run, a resumed run would become another one, or a
            library that the config needs is missing.
        RunError: files cannot be read or written, nobody answers at the address, or an episode
            failed in a worker. What was learned until then is saved.
    """
    if config.tensorboard:
        need_extra("tensorboard", "tensorboardX")
    with shown(reporter, config) as watching, open_run(config) as run_dir:
        state, checkpoint = _start(config, run_dir)
        training = _Training(config, run_dir, watching, stop_asked, callbacks, state, checkpoint)
        return _result(training, finished=training.run())


def _result(training: "_Training", *, finished: bool) -> TrainResult:
    return TrainResult(
        run_dir=training.run_dir.path,
        checkpoint=training.checkpoint,
        weights_checksum=weights_checksum(training.state.policy),
        progress=training.state.progress,
        interrupted=not finished,
    )


@dataclass
class _Training:
    """A run of the learner that goes on when the Ray that we started dies."""

    config: TrainConfig
    run_dir: RunDir
    reporter: Reporter
    stop_asked: Callable[[], bool]
    callbacks: Sequence[Callback]
    state: TrainingState
    checkpoint: Path
    """Holds ``state``."""
    deaths: int = 0
    """How often Ray has died since there was an update in between."""

    def run(self) -> bool:
        """Train until a stop condition holds (True) or it is asked to stop (False)."""
        while not stop_reached(self.config, self.state.progress, self.state.progress.wall_seconds):
            try:
                return self._run_on_ray()
            except RayStartError:
                if not self.stop_asked():
                    raise
                # What asked for the stop may have ended Ray as well, as a hang-up does.
                return False
            except RayLostError as error:
                if not error.ours or self.deaths == MOST_RAY_DEATHS:
                    raise
            except KeyboardInterrupt:
                return False
            if self.stop_asked():
                return False
        return True

    def _run_on_ray(self) -> bool:
        """Train for as long as one Ray lives; whatever ends it, the last update is saved."""
        config = self.config
        with (
            ray_session(config.address, config.num_workers, config.max_workers) as session,
            _requested_cpus(config, session),
            RayWorkerPool(config, session.workers, check=session.check, cpus=session.cpus) as pool,
            Sinks(self._sinks(), self.reporter) as watched,
        ):
            learner = Learner(
                config,
                self.state,
                pool,
                self.run_dir,
                watched,
                self.checkpoint,
                callbacks=self.callbacks,
            )
            session.when_silent(learner.save)
            before = self.state.progress.update
            try:
                return self._run(learner)
            except RayLostError as error:
                if error.ours:
                    self.deaths = 1 if self.state.progress.update > before else self.deaths + 1
                    self._tell(error)
                    session.end_processes()
                raise

    def _run(self, learner: Learner) -> bool:
        try:
            return learner.run(self.stop_asked)
        finally:
            # The state is whole after each update, be this an error, an interrupt or an exit.
            self.state = learner.state
            self.checkpoint = learner.save()

    def _tell(self, error: RayLostError) -> None:
        """Say it before the rest of Ray ends, which may take this process along."""
        goes_on = "" if self.deaths == MOST_RAY_DEATHS else ", and Ray is started anew"
        _LOG.warning(f"{error}; update {self.state.progress.update} is saved{goes_on}")

    def _sinks(self) -> dict[str, Callable[[], Sink]]:
        """What shows the run outside of its folder and the terminal."""
        run, progress = self.run_dir.path, self.state.progress

        def tensorboard() -> Sink:
            from distributed_pg.monitoring.tensorboard import TensorBoardSink

            return TensorBoardSink(run, progress.episodes)

        metrics = {"Ray metrics": lambda: RayMetrics(run, progress.frames)}
        return {**metrics, "TensorBoard": tensorboard} if self.config.tensorboard else {**metrics}


def _requested_cpus(config: TrainConfig, session: RaySession) -> AbstractContextManager[None]:
    """Ask a cluster that grows on demand for the CPUs that the run can use."""
    if config.address is None:
        return nullcontext()
    if config.num_workers != "auto":
        return session.requested_cpus(config.num_workers)
    most = config.max_workers or sys.maxsize
    return session.requested_cpus(min(config.episodes_at_a_time, most))


def resume(
    location: str | Path,
    reporter: Reporter | Literal["auto"] | None = "auto",
    stop_asked: Callable[[], bool] = lambda: False,
    callbacks: Sequence[Callback] = (),
    **changes: Any,
) -> TrainResult:
    """Go on with the run in a folder or at a URI; see :func:`train` and :func:`resume_config`.

    Args:
        location: the run.
        reporter: as for :func:`train`.
        stop_asked: as for :func:`train`.
        callbacks: as for :func:`train`.
        changes: settings that are to be others from now on, such as ``stop_episodes``.

    Returns:
        What was reached.

    Raises:
        UsageError: there is no run, or a setting cannot be changed.
        RunError: as for :func:`train`.
    """
    return train(resume_config(location, **changes), reporter, stop_asked, callbacks)


def resume_config(location: str | Path, **changes: Any) -> TrainConfig:
    """The settings of the run in a folder or at a URI, to go on with it.

    ``address``, ``num_workers`` and ``max_workers`` belong to the place where a run trains; they
    stand at their defaults unless they are given. A stop condition that is given takes the place of
    all that were saved.

    Raises:
        UsageError: there is no run.
        RunError: it cannot be read, or none of its checkpoints is good.
    """
    return saved_config(location).to_go_on(location, **changes)


def _start(config: TrainConfig, run_dir: RunDir) -> tuple[TrainingState, Path]:
    """The state to go on from, and the checkpoint that holds it.

    A run that is refused, or has nothing left to do, is left as it is.
    """
    if config.resume is None:
        state = TrainingState.initial(config)
        # So that a run can be resumed whenever it is stopped, and however early.
        return state, run_dir.save(config, state, best=False)
    path, checkpoint = run_dir.load_newest()
    check_same_run(config, checkpoint.config)
    state = checkpoint.state
    if held := held_conditions(config, state.progress):
        _LOG.info(nothing_left(config, state.progress, held))
        return state, path
    for change in changed_versions(checkpoint.versions):
        _LOG.warning(f"{change}: the run may not go on with the same bits")
    for repair in repairs(run_dir.path, config, checkpoint):
        _LOG.warning(repair)
    path, aside = run_dir.rewind(config, state.progress.update, path)
    for damaged in aside:
        _LOG.warning(f"The damaged checkpoint is kept as {damaged}")
    return state, path
