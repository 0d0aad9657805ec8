"""A checkpoint for the tests of record and play."""

from pathlib import Path

from distributed_pg.algo.state import TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.storage.checkpoint import save_checkpoint


def untrained_checkpoint(path: Path, frame_limit: int) -> Path:
    """Save the initial policy of a run whose games end after ``frame_limit`` frames."""
    config = TrainConfig(frame_limit=frame_limit, frame_skip=4, hidden_units=8)
    save_checkpoint(path, config, TrainingState.initial(config))
    return path
