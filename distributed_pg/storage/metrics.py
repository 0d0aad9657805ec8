"""The records of metrics.jsonl, one line per update."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed_pg.algo.state import Progress
from distributed_pg.episode import EpisodeStats

METRICS = "metrics.jsonl"
_TAIL_BYTES = 2**12
"""More than a usual line; a batch of hundreds of episodes makes longer ones."""
_NUMBERS = ("update", "episodes", "frames", "wall_seconds", "mean_100", "frames_per_second")


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """One line of metrics.jsonl: an update, and the run after it."""

    update: int
    """Updates made so far."""
    episodes: int
    """Episodes so far."""
    frames: int
    """Emulated frames so far."""
    wall_seconds: float
    """Training time so far, seconds."""
    rewards: list[float]
    """Reward of each episode of this update."""
    lengths: list[int]
    """Steps of each episode of this update."""
    points_won: int
    """Points the policy scored in this update's episodes."""
    points_lost: int
    """Points the opponent scored in them."""
    points_share: float | None
    """Fraction of the points that the policy won; None if there were none."""
    entropy: float
    """Entropy of the policy in nats, mean over the steps of this update's episodes."""
    running_mean: float | None
    """Running mean of the reward, each episode with weight 0.01."""
    mean_100: float | None
    """Mean reward of the last 100 episodes."""
    best_reward: float | None
    """Highest reward of an episode."""
    episodes_per_hour: float
    """Rate over the last 25 updates of this session."""
    frames_per_second: float
    """Emulated frames per second, over the same updates."""
    worker_busy: float
    """Fraction of the workers' time spent playing, over this update's episodes."""
    workers: int
    """Number of workers that can play."""
    gradient_bytes: int
    """Mean size of an episode's gradient in this update."""
    worker_memory: int
    """Highest peak resident memory of this update's workers, bytes."""
    learner_memory: int
    """Peak resident memory of the learner's process in this session, bytes."""
    learning_rate: float
    """RMSProp's step size in this update."""
    gradient_norm: float
    """Euclidean norm of the summed gradient."""
    weights_norm: float
    """Euclidean norm of the weights after this update."""
    policy_lag: int
    """Age, in updates, of the weights that played this update's episodes."""
    update_seconds: float
    """The learner's time for this update: fetching and summing gradients, taking the step and
    broadcasting the weights."""
    weights_checksum: str
    """Checksum of the weights after this update."""

    @classmethod
    def from_batch(
        cls, batch: list[EpisodeStats], progress: Progress, since: Progress, **of_update: Any
    ) -> "UpdateRecord":
        """The record of an update.

        Args:
            batch: statistics of the update's episodes, in order.
            progress: the run after the update.
            since: the run after an earlier update of this session; rates cover the time since then.
            of_update: the fields that cannot be computed from these.
        """
        busy = sum(stats.seconds for stats in batch)
        steps = sum(stats.steps for stats in batch)
        won = sum(stats.points_won for stats in batch)
        lost = sum(stats.points_lost for stats in batch)
        entropy = sum(stats.entropy * stats.steps for stats in batch) / steps
        seconds = max(progress.wall_seconds - since.wall_seconds, 1e-9)
        return cls(
            update=progress.update,
            episodes=progress.episodes,
            frames=progress.frames,
            wall_seconds=round(progress.wall_seconds, 3),
            rewards=[stats.reward for stats in batch],
            lengths=[stats.steps for stats in batch],
            points_won=won,
            points_lost=lost,
            points_share=round(won / (won + lost), 4) if won + lost else None,
            entropy=round(entropy, 6),
            running_mean=progress.running_mean,
            mean_100=progress.mean_100,
            best_reward=progress.best_reward,
            episodes_per_hour=round((progress.episodes - since.episodes) / seconds * 3600, 1),
            frames_per_second=round((progress.frames - since.frames) / seconds, 1),
            worker_busy=round(busy / (busy + sum(stats.waited_seconds for stats in batch)), 4),
            gradient_bytes=sum(stats.gradient_bytes for stats in batch) // len(batch),
            worker_memory=max(stats.worker_memory for stats in batch),
            **of_update,
        )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics.jsonl, without an incomplete last line; empty if the file is missing.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not JSON.
    """
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def is_record_until(line: bytes, update: int) -> bool:
    """Whether a line is complete and its update is at most ``update``."""
    try:
        return int(json.loads(line)["update"]) <= update
    except (ValueError, TypeError, LookupError):  # left incomplete by a killed process
        return False


def last_record(path: Path) -> dict[str, Any] | None:
    """The last complete line of a metrics.jsonl; None if there is none, or it is damaged.

    Only the end of the file is read.
    """
    try:
        record = json.loads(_last_line(path))
    except (OSError, ValueError, LookupError, RecursionError):
        return None
    is_whole = isinstance(record, dict) and all(
        type(record.get(name)) in (int, float) for name in _NUMBERS
    )
    return record if is_whole else None


def _last_line(path: Path) -> bytes:
    """The last complete line of a file; raises LookupError if it has none."""
    with path.open("rb") as file:
        size, tail = file.seek(0, os.SEEK_END), _TAIL_BYTES
        while True:
            file.seek(max(0, size - tail))
            lines = file.read().split(b"\n")
            if len(lines) > 2 or tail >= size:
                return lines[-2]
            tail *= 8
