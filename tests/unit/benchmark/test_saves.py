"""What the benchmark measures leaves nothing behind that is still being written."""

import time
from pathlib import Path
from typing import Any, cast

import pytest
from simulated_pool import SimulatedWorkerPool, play_for_real

from distributed_pg.algo.state import TrainingState
from distributed_pg.benchmark.throughput import _watch_training
from distributed_pg.config import TrainConfig
from distributed_pg.runtime.ray_worker_pool import RayWorkerPool
from distributed_pg.storage.run_dir import RunDir

CONFIG = TrainConfig(batch_size=1, frame_limit=80, hidden_units=8, checkpoint_every=1)


class ReadyCluster(SimulatedWorkerPool):
    starting = False


def test_it_waits_for_the_last_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, saved = [], []
    save = RunDir.save

    def slow_save(self: RunDir, *arguments: Any, **options: Any) -> Path:
        begun.append(self)
        time.sleep(0.2)
        saved.append(save(self, *arguments, **options))
        return saved[-1]

    monkeypatch.setattr(RunDir, "save", slow_save)
    cluster = cast("RayWorkerPool", ReadyCluster(play_for_real(CONFIG), workers=1))
    records = _watch_training(CONFIG, TrainingState.initial(CONFIG), cluster, seconds=0.0)
    assert len(records) == 2
    assert len(begun) == len(saved) > 1
    assert not saved[-1].exists()  # with the folder it was in
