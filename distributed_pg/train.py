"""Train: the run's folder, Ray, its workers and the learner put together."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from distributed_pg.checkpoint import weights_checksum
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.learner import Learner, Reporter, stop_reached
from distributed_pg.ray_cluster import RayCluster
from distributed_pg.ray_metrics import RayMetrics
from distributed_pg.ray_session import ray_session, requested_cpus
from distributed_pg.ray_worker import reason_of
from distributed_pg.run_dir import RunDir, UpdateRecord
from distributed_pg.run_location import open_run, saved_config
from distributed_pg.sinks import Sink, Sinks
from distributed_pg.state import Progress, TrainingState
from distributed_pg.terminal import need_extra
from distributed_pg.versions import changed_versions


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run, or this part of it, ended."""

    run_dir: Path
    checkpoint: Path
    """The checkpoint written at the end."""
    weights_checksum: str
    updates: int
    episodes: int
    frames: int
    running_mean: float | None
    mean_100: float | None
    interrupted: bool
    """Whether it was asked to stop before a stop condition held."""


class Silent:
    """A reporter that says nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def updated(self, record: UpdateRecord) -> None:
        """Say nothing."""


def train(
    config: TrainConfig,
    reporter: Reporter | None = None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train a policy until a stop condition holds, or ``stop_asked()`` says so between updates.

    Args:
        config: the settings. With ``resume`` the run there goes on; see :func:`resume_config`.
        reporter: told of every update; None for nobody.
        stop_asked: asked at least twice a second. The last update is kept, later episodes are
            played again when the run is resumed.

    Returns:
        What was reached. The same config gives the same ``weights_checksum`` on any number of
        workers, whatever was lost on the way.

    Raises:
        UsageError: the run directory holds a run, a resumed run would become another one, or a
            library that the config needs is missing.
        RunError: files cannot be read or written, nobody answers at the address, or an episode
            failed in a worker. What was learned until then is saved.
    """
    reporter = reporter or Silent()
    if config.tensorboard:
        need_extra("tensorboard", "tensorboardX")
    with open_run(config, reporter.message) as run_dir:
        return _train(config, run_dir, reporter, stop_asked)


def _train(
    config: TrainConfig, run_dir: RunDir, reporter: Reporter, stop_asked: Callable[[], bool]
) -> TrainResult:
    state, checkpoint = _start(config, run_dir, reporter)
    finished = stop_reached(config, state.progress, state.progress.wall_seconds)
    if not finished:
        with (
            ray_session(
                config.address, config.num_workers, reporter.message, config.max_workers
            ) as wanted,
            _requested_cpus(config),
            RayCluster(config, wanted, message=reporter.message) as cluster,
            Sinks(_sinks(config, run_dir.path, state.progress), reporter) as watched,
        ):
            learner = Learner(config, state, cluster, run_dir, watched, checkpoint)
            try:
                finished = learner.run(stop_asked)
            except RunError:
                learner.save()
                raise
            except RayError as error:
                learner.save()
                raise RunError(f"Ray failed: {reason_of(error)}") from error
            checkpoint = learner.save()
    progress = state.progress
    return TrainResult(
        run_dir=run_dir.path,
        checkpoint=checkpoint,
        weights_checksum=weights_checksum(state.policy),
        updates=progress.update,
        episodes=progress.episodes,
        frames=progress.frames,
        running_mean=progress.running_mean,
        mean_100=progress.mean_100,
        interrupted=not finished,
    )


def _requested_cpus(config: TrainConfig) -> AbstractContextManager[None]:
    """Ask a cluster that grows on demand for the CPUs that the run can use."""
    if config.address is None:
        return nullcontext()
    if config.num_workers != "auto":
        return requested_cpus(config.num_workers)
    return requested_cpus(min(config.episodes_at_a_time, config.max_workers or sys.maxsize))


def _sinks(config: TrainConfig, run: Path, progress: Progress) -> dict[str, Callable[[], Sink]]:
    """What shows the run outside of its folder and the terminal."""

    def tensorboard() -> Sink:
        from distributed_pg.tensorboard_sink import TensorBoardSink

        return TensorBoardSink(run, progress.episodes)

    sinks: dict[str, Callable[[], Sink]] = {"Ray metrics": lambda: RayMetrics(run, progress.frames)}
    return {**sinks, "TensorBoard": tensorboard} if config.tensorboard else sinks


def resume_config(location: str | Path, **changes: Any) -> TrainConfig:
    """The settings of the run in a folder or at a URI, to go on with it.

    Raises:
        UsageError: there is no run.
        RunError: it cannot be read, or none of its checkpoints is good.
    """
    return replace(saved_config(location), resume=location, **changes)


def _start(config: TrainConfig, run_dir: RunDir, reporter: Reporter) -> tuple[TrainingState, Path]:
    """The state to go on from, and the checkpoint that holds it."""
    if config.resume is None:
        state = TrainingState.initial(config)
        # So that a run can be resumed whenever it is stopped, and however early.
        return state, run_dir.save(config, state, best=False)
    path, checkpoint = run_dir.load_newest(reporter.message)
    changed = [
        f"{name}: the run in {run_dir.path} has {getattr(checkpoint.config, name)}, "
        f"not {getattr(config, name)}"
        for name in config.changed_settings(checkpoint.config)
    ]
    if changed:
        raise UsageError("; ".join(changed))
    for change in changed_versions(checkpoint.versions):
        reporter.message(f"{change}: the run may not go on with the same bits")
    run_dir.rewind(config, checkpoint.state.progress.update)
    return checkpoint.state, path
