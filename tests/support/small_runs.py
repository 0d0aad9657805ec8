"""Runs with files of a few kilobytes, for tests of storage."""

from pathlib import Path

from records import record_of

from distributed_pg.algo.state import WINDOW, Progress, TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.storage.run_dir import RunDir

CONFIG = TrainConfig(hidden_units=4, batch_size=1, crop=(35, 39, 0, 160), checkpoint_every=1)
"""One episode per update, one update per checkpoint."""


def state_after(update: int, reward: float = -1.0) -> TrainingState:
    """A state after ``update`` episodes that all had the same reward."""
    policy = TrainingState.initial(CONFIG).policy
    versions = dict.fromkeys(range(max(0, update - 1), update + 1), policy)
    rewards = (reward,) * min(update, WINDOW)
    progress = Progress(update=update, episodes=update, last_rewards=rewards)
    return TrainingState(versions, policy.zeros_like(), progress)


def make_update(run: RunDir, update: int, config: TrainConfig = CONFIG) -> None:
    """Write the metrics and the checkpoint of an update."""
    run.append(record_of(update))
    run.save(config, state_after(update), best=False)


def listing(folder: Path) -> dict[str, bytes]:
    """Paths and contents of everything in a folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path): b"" if path.is_dir() else path.read_bytes() for path in paths}
