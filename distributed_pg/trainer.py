"""Trains: combines the run's folder, Ray, the workers and the learner."""

import logging
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from distributed_pg._extras import need_extra
from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.monitoring.display_thread import DisplayThread
from distributed_pg.monitoring.progress import shown
from distributed_pg.monitoring.reporter import Callback, Reporter
from distributed_pg.monitoring.sinks import Sink, Sinks
from distributed_pg.runtime.health import RayLostError, RayStartError
from distributed_pg.runtime.prometheus import RayMetrics
from distributed_pg.runtime.ray_worker_pool import RayWorkerPool
from distributed_pg.runtime.session import RaySession, ray_session
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.object_store import is_uri
from distributed_pg.storage.open_run import open_run, saved_config
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.storage.warm_start import begin
from distributed_pg.system_info import changed_versions
from distributed_pg.training.learner import Learner, stop_reached
from distributed_pg.training.resuming import check_same_run, held_conditions, nothing_left, repairs

_LOG = logging.getLogger(__name__)

MOST_RAY_DEATHS = 3
"""Deaths of the local Ray without an update in between after which the run gives up."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run, or this part of it, ended."""

    run_dir: Path
    checkpoint: Path
    """The final checkpoint."""
    weights_checksum: str
    progress: Progress
    """Updates, episodes, frames and rewards of the whole run."""
    interrupted: bool
    """Whether the run was stopped before a stop condition held."""


def train(
    config: TrainConfig,
    reporter: Reporter | Literal["auto"] | None = "auto",
    stop_asked: Callable[[], bool] = lambda: False,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a policy until a stop condition holds, or a callback or ``stop_asked`` stops the run.

    A KeyboardInterrupt, such as a notebook's stop button, also stops the run: it is saved, and the
    result is returned.

    Args:
        config: the settings. With ``resume``, they are those of a run that continues; for these,
            :func:`resume` is easier. With ``resume="auto"``, the run in ``run_dir`` continues, if
            there is one.
        reporter: shows the run. ``"auto"`` shows a table in a notebook and lines on standard output
            elsewhere; None shows nothing.
        stop_asked: polled at least twice a second; returning True stops the run after the last
            update. Episodes played since are played again when the run is resumed.
        callbacks: each is called with the :class:`~distributed_pg.storage.metrics.UpdateRecord` of
            every update; the run stops after an update for which one returns True.

    Returns:
        The state of the run at its end. The same config gives the same ``weights_checksum`` on any
        number of workers, whatever failed on the way.

    Raises:
        UsageError: the run directory already holds a run, the config does not match the resumed
            run or the policy at ``init_from``, a library that the config needs is missing, or
            ``wandb`` needs a login.
        RunError: files cannot be read or written, no cluster answers at the address, or an episode
            failed in a worker. The last update is saved.
    """
    _check_sinks(config)
    with shown(reporter, config) as watching, open_run(config) as run_dir:
        config, state, checkpoint = _start(config, run_dir)
        training = _Training(config, run_dir, watching, stop_asked, callbacks, state, checkpoint)
        return _result(training, finished=training.run())


def _check_sinks(config: TrainConfig) -> None:
    if config.tensorboard:
        need_extra("tensorboard", "tensorboardX")
    if config.wandb:
        need_extra("wandb", "wandb")
        from distributed_pg.monitoring.wandb import check_can_send

        check_can_send()


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
    """A training run that survives the death of a Ray that it started itself."""

    config: TrainConfig
    run_dir: RunDir
    reporter: Reporter
    stop_asked: Callable[[], bool]
    callbacks: Sequence[Callback]
    state: TrainingState
    checkpoint: Path
    """The checkpoint that holds ``state``."""
    deaths: int = 0
    """Number of times Ray has died without an update in between."""

    def run(self) -> bool:
        """Train; return True when a stop condition holds, False when asked to stop."""
        while not stop_reached(self.config, self.state.progress, self.state.progress.wall_seconds):
            try:
                return self._run_on_ray()
            except RayStartError:
                if not self.stop_asked():
                    raise
                # The cause of the stop may also have ended Ray, as a hang-up does.
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
        """Train on one Ray session; whatever ends it, the last update is saved."""
        config = self.config
        if isinstance(self.reporter, DisplayThread):
            place = str(kept_at(config, self.run_dir.path))
            self.reporter.starting(place, self.state.progress.episodes)
        with (
            ray_session(config.address, config.num_workers, config.max_workers) as session,
            self._pool(session) as pool,
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
                    self._warn(error)
                    session.end_processes()
                raise

    def _pool(self, session: RaySession) -> RayWorkerPool:
        config = self.config
        if config.address is not None:
            session.request_cpus(_useful_cpus(config))
        return RayWorkerPool(config, session.workers, check=session.check, cpus=session.cpus)

    def _run(self, learner: Learner) -> bool:
        try:
            return learner.run(self.stop_asked)
        finally:
            # The state is complete after each update, even after an error, interrupt or exit.
            self.state = learner.state
            self.checkpoint = learner.save()

    def _warn(self, error: RayLostError) -> None:
        """Log the loss before Ray's other processes end, which may kill this process, too."""
        restart = "" if self.deaths == MOST_RAY_DEATHS else ", and Ray is restarted"
        _LOG.warning(f"{error}; update {self.state.progress.update} is saved{restart}")

    def _sinks(self) -> dict[str, Callable[[], Sink]]:
        """The sinks, which show the run outside its folder and the terminal."""
        config, run, progress = self.config, self.run_dir.path, self.state.progress

        def tensorboard() -> Sink:
            from distributed_pg.monitoring.tensorboard import TensorBoardSink

            return TensorBoardSink(run, progress.episodes)

        def wandb() -> Sink:
            from distributed_pg.monitoring.wandb import WandbSink

            return WandbSink(run, config)

        sinks: dict[str, Callable[[], Sink]] = {
            "Ray metrics": lambda: RayMetrics(run, progress.frames)
        }
        if config.tensorboard:
            sinks["TensorBoard"] = tensorboard
        if config.wandb:
            sinks["Weights & Biases"] = wandb
        return sinks


def kept_at(config: TrainConfig, folder: Path) -> str | Path:
    """Where the user finds the run: at its URI, if it has one, else in this folder."""
    return config.location if is_uri(config.location) else folder


def _useful_cpus(config: TrainConfig) -> int:
    """The CPUs that the run can use on a cluster that grows on demand."""
    if config.num_workers != "auto":
        return config.num_workers
    return min(config.tasks_at_a_time, config.max_workers or sys.maxsize)


def resume(
    location: str | Path,
    reporter: Reporter | Literal["auto"] | None = "auto",
    stop_asked: Callable[[], bool] = lambda: False,
    callbacks: Sequence[Callback] = (),
    **changes: Any,
) -> TrainResult:
    """Resume a run with its saved settings; see :func:`train`.

    ``address``, ``num_workers`` and ``max_workers`` describe where a run trains. They have their
    defaults unless given. Giving a stop condition replaces all saved ones.

    Args:
        location: the run's folder or URI.
        reporter: as for :func:`train`.
        stop_asked: as for :func:`train`.
        callbacks: as for :func:`train`.
        changes: settings to change from now on, such as ``stop_episodes``.

    Returns:
        The state of the run at its end.

    Raises:
        UsageError: there is no run, or a setting is out of range or cannot be changed.
        RunError: as for :func:`train`.
    """
    return train(resume_config(location, **changes), reporter, stop_asked, callbacks)


def resume_config(location: str | Path, **changes: Any) -> TrainConfig:
    """Return the settings with which to resume a run, as :func:`resume` does.

    Args:
        location: the run's folder or URI.
        changes: settings to change.

    Returns:
        The settings, with ``resume`` set.

    Raises:
        UsageError: there is no run, or a setting is out of range.
        RunError: the run cannot be read, or none of its checkpoints is intact.
    """
    return saved_config(location).to_go_on(location, **changes)


def _start(config: TrainConfig, run_dir: RunDir) -> tuple[TrainConfig, TrainingState, Path]:
    """The settings as saved, the state to start from, and the checkpoint that holds it.

    A run that is refused, or that has nothing left to do, stays unchanged.
    """
    if run_dir.is_new:
        return _begin(config, run_dir)
    path, checkpoint = run_dir.load_newest()
    config = _identified(config.pinned_as(checkpoint.config))
    check_same_run(config, checkpoint.config)
    state = checkpoint.state
    if held := held_conditions(config, state.progress):
        _LOG.info(nothing_left(config, state.progress, held))
        return config, state, path
    for change in changed_versions(checkpoint.versions):
        _LOG.warning(f"{change}: the resumed run may not be bit-identical")
    for repair in repairs(run_dir.path, config, checkpoint):
        _LOG.warning(repair)
    path, aside = run_dir.rewind(config, state.progress.update, path)
    for damaged in aside:
        _LOG.warning(f"The damaged checkpoint is kept as {damaged}")
    return config, state, path


def _begin(config: TrainConfig, run_dir: RunDir) -> tuple[TrainConfig, TrainingState, Path]:
    given = config
    config, state = begin(_identified(config))
    if config != given:
        run_dir.write_config(config)
    if config.init_from is not None:
        optimizer = "its optimizer state" if config.init_optimizer else "a fresh optimizer"
        _LOG.info(
            f"Starting from {config.init_from}, weights {config.init_checksum}, with {optimizer}"
        )
    # Saved so that the run can be resumed even if it stops before the first update.
    return config, state, run_dir.save(config, state, best=False)


def _identified(config: TrainConfig) -> TrainConfig:
    """The config with an id for Weights & Biases, if it needs one."""
    if not config.wandb or config.wandb_id is not None:
        return config
    return replace(config, wandb_id=secrets.token_hex(4))
