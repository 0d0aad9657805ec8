"""Runs of the real learner on a simulated pool, for tests of what it computes and writes."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from simulated_pool import Faults, SimulatedWorkerPool, play_for_real

from distributed_pg.algo.state import TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.storage.metrics import UpdateRecord
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.training.learner import Learner

# Games of 160 steps: long enough for points, short enough for many runs.
CONFIG = TrainConfig(
    seed=7, batch_size=3, stop_episodes=12, frame_limit=320, hidden_units=20, checkpoint_every=2
)

QUICK = TrainConfig(batch_size=1, frame_limit=400, hidden_units=8)
"""The settings of the command line's :data:`command.QUICK`."""


class Recorder:
    def __init__(self) -> None:
        self.records: list[UpdateRecord] = []

    def updated(self, record: UpdateRecord) -> None:
        self.records.append(record)


def make_cluster(config: TrainConfig, workers: int, **faults: Any) -> SimulatedWorkerPool:
    """A pool whose workers play real games."""
    return SimulatedWorkerPool(play_for_real(config), workers, Faults(**faults), seed=len(faults))


def make_learner(
    config: TrainConfig,
    folder: Path,
    state: TrainingState,
    pool: SimulatedWorkerPool,
    reporter: Recorder,
) -> Learner:
    """A learner at ``state``, as train() makes one: with a checkpoint of it on the disk."""
    new = not folder.exists()
    run_dir = RunDir.create(replace(config, run_dir=folder)) if new else RunDir.open(folder)
    saved = run_dir.save(config, state, best=False)
    return Learner(config, state, pool, run_dir, reporter, saved, pool.clock)


def run(
    config: TrainConfig,
    folder: Path,
    state: TrainingState | None = None,
    workers: int = 2,
    **faults: Any,
) -> tuple[TrainingState, Recorder, SimulatedWorkerPool]:
    state = state or TrainingState.initial(config)
    reporter, pool = Recorder(), make_cluster(config, workers, **faults)
    learner = make_learner(config, folder, state, pool, reporter)
    assert learner.run(lambda: False)
    learner.save()
    return learner.state, reporter, pool


def checksums(config: TrainConfig) -> list[str]:
    """The weights' checksum after each update of a run."""
    with tempfile.TemporaryDirectory() as folder:
        _, recorder, _ = run(config, Path(folder, "run"))
    return [record.weights_checksum for record in recorder.records]
