"""The folder a run is kept in: config.json, metrics.jsonl and checkpoints/."""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from distributed_pg.checkpoint import (
    MISFITS,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from distributed_pg.config import TrainConfig
from distributed_pg.errors import CheckpointError, RunError, UsageError, one_line, writing
from distributed_pg.sealed_file import write_atomically
from distributed_pg.state import WINDOW, TrainingState

RUNS = Path("runs")
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
BEST = "best.safetensors"
LOCK = "lock"


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """One line of metrics.jsonl: an update and the run as it stands after it."""

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
    """Points won of those played; None if there were none."""
    entropy: float
    """Entropy of the policy, mean over the steps of this update's episodes, nats."""
    running_mean: float | None
    """Running mean of the reward, each episode with weight 0.01."""
    mean_100: float | None
    """Mean reward of the last 100 episodes."""
    best_reward: float | None
    """Highest reward of an episode."""
    episodes_per_hour: float
    """Rate over the last 25 updates of this session."""
    frames_per_second: float
    """Emulated frames per second, likewise."""
    worker_busy: float
    """Share of the workers' time spent playing, from 0 to 1, over the episodes of this update."""
    workers: int
    """Workers that can play now."""
    gradient_bytes: int
    """Size of an episode's gradient, mean over this update."""
    worker_memory: int
    """The most memory that one of the workers of this update ever had resident, bytes."""
    learner_memory: int
    """The most memory the learner's process ever had resident in this session, bytes."""
    learning_rate: float
    """RMSProp's step size in this update."""
    gradient_norm: float
    """Euclidean norm of the summed gradient."""
    weights_norm: float
    """Euclidean norm of the weights after this update."""
    policy_lag: int
    """How many updates old the weights were that played this update's episodes."""
    update_seconds: float
    """The learner's time for this update: fetching and summing the gradients, the step and
    publishing the weights."""
    weights_checksum: str
    """Of the weights after this update."""


class RunDir:
    """A run's folder. Make one with :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.when_saved: Callable[[], None] = lambda: None
        """Called after each checkpoint."""
        self._metrics = path / METRICS
        self._checkpoints = path / CHECKPOINTS

    @classmethod
    def create(cls, config: TrainConfig) -> "RunDir":
        """A folder for a new run.

        Raises:
            UsageError: there is a run in it already.
            RunError: it cannot be written.
        """
        with writing(f"run_dir: {config.run_dir or RUNS}"):
            path = Path(config.run_dir or new_folder(config.preset))
            run_dir = cls(path)
            path.mkdir(parents=True, exist_ok=True)
            if any((path / name).exists() for name in ("config.json", METRICS, CHECKPOINTS)):
                raise UsageError(
                    f"run_dir: {path} holds a run already; --resume {path} goes on with it"
                )
            run_dir._checkpoints.mkdir()
            write_atomically(path / "config.json", _config_text(config).encode())
        return run_dir

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """The folder of an existing run.

        Raises:
            UsageError: there is no run in it.
        """
        try:
            (path / "config.json").open().close()
        except OSError as error:
            reason = f"config.json: {error.strerror}"
            raise UsageError(f"{path} holds no run ({reason})") from None
        return cls(path)

    def newest_checkpoint(self) -> Path:
        """The file of the latest checkpoint.

        Raises:
            RunError: there is none.
        """
        files = self._numbered_checkpoints()
        if not files:
            raise RunError(f"{self.path}: there is no checkpoint in {self._checkpoints}")
        return files[-1]

    def load_newest(self, message: Callable[[str], None]) -> tuple[Path, Checkpoint]:
        """The latest checkpoint that is good, and what it says.

        ``message`` is told which ones are not, and why.

        Raises:
            RunError: there is none.
        """
        self.newest_checkpoint()
        damaged = []
        for path in [*reversed(self._numbered_checkpoints()), self._checkpoints / BEST]:
            try:
                checkpoint = load_checkpoint(path)
            except CheckpointError as error:
                damaged.append(error)
                continue
            for reason in damaged:
                message(f"{reason}; going on from {path.name}")
            return path, checkpoint
        raise RunError(f"no checkpoint is good; the newest: {damaged[0]}") from damaged[0]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training here. The lock ends with the process, however it ends.

        Raises:
            UsageError: another process trains here.
            RunError: the folder cannot be written.
        """
        with self._locked_file():
            yield

    def _locked_file(self) -> TextIO:
        path = self.path / LOCK
        try:
            file = path.open("a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise UsageError(f"run_dir: {self.path} is in use by {file.read(100)}") from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        except OSError as error:
            raise RunError(f"{path}: cannot be locked ({error.strerror})") from error
        return file

    def save(self, config: TrainConfig, state: TrainingState, *, best: bool) -> Path:
        """Write a checkpoint and delete those no longer kept; ``best``: also as the best one.

        The lines of metrics.jsonl reach the disk first.

        Raises:
            RunError: it cannot be written. What was saved before is still there.
        """
        path = self._checkpoints / f"update-{state.progress.update:08}.safetensors"
        with writing(f"{path}:"):
            if self._metrics.exists():
                with self._metrics.open("a") as file:
                    os.fsync(file.fileno())
            if best:
                save_checkpoint(self._checkpoints / BEST, config, state)
            save_checkpoint(path, config, state)
            for old in self._numbered_checkpoints()[: -config.keep]:
                old.unlink()
        self.when_saved()
        return path

    def append(self, record: UpdateRecord) -> None:
        """Add a line to metrics.jsonl.

        Raises:
            RunError: it cannot be written.
        """
        line = json.dumps(asdict(record)).encode() + b"\n"
        with writing(f"{self._metrics}:"), self._metrics.open("ab", buffering=0) as file:
            end = file.tell()
            if file.write(line) != len(line):  # the disk is full
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def rewind(self, config: TrainConfig, update: int) -> None:
        """Make the folder what it was after ``update`` updates, to go on from there.

        A run that was killed has metrics of updates made after its last checkpoint. They will be
        made again, with the same results.

        Raises:
            RunError: it cannot be written.
        """
        with writing(f"{self.path}:"):
            write_atomically(self.path / "config.json", _config_text(config).encode())
            if self._metrics.exists():
                lines = self._metrics.read_bytes().splitlines()
                kept = [line + b"\n" for line in lines if _is_record_until(line, update)]
                write_atomically(self._metrics, b"".join(kept))

    def _numbered_checkpoints(self) -> list[Path]:
        return sorted(self._checkpoints.glob("update-*.safetensors"))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, but for one that is only half written; none if it is not there.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is not JSON.
    """
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def is_best(state: TrainingState) -> bool:
    """Whether the mean of the last 100 episodes is the highest a checkpoint has had."""
    mean, best = state.progress.mean_100, state.progress.best_mean_100
    if mean is None or state.progress.episodes < WINDOW:
        return False
    return best is None or mean > best


def find_checkpoint(path: Path) -> Path:
    """``path`` itself, or the newest checkpoint if it is a run's folder.

    Raises:
        UsageError: there is nothing at ``path``, or it is a folder without a run.
        RunError: the run has no checkpoint yet.
    """
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    return RunDir.open(path).newest_checkpoint() if is_folder else path


def new_folder(preset: str) -> Path:
    """A new folder in runs/; of those begun within the same second, the later get a number."""
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{preset}"
    RUNS.mkdir(exist_ok=True)
    for suffix in itertools.chain([""], (f"_{number}" for number in itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            (RUNS / (stem + suffix)).mkdir()
            break
    return RUNS / (stem + suffix)


def _config_text(config: TrainConfig) -> str:
    return json.dumps(config.to_json(), indent=2) + "\n"


def parse_config(text: bytes, path: str) -> TrainConfig:
    """The settings in a config.json, which came from ``path``.

    Raises:
        RunError: it cannot be used.
    """
    try:
        return TrainConfig.from_json(json.loads(text))
    except MISFITS as error:
        raise RunError(f"{path}: cannot be used ({one_line(error)})") from None


def _is_record_until(line: bytes, update: int) -> bool:
    try:
        return int(json.loads(line)["update"]) <= update
    except (ValueError, TypeError, LookupError):  # the line a killed process was writing
        return False
