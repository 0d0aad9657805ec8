"""The folder a run is kept in: config.json, metrics.jsonl and checkpoints/."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from distributed_pg.checkpoint import save_checkpoint, write_atomically
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.state import WINDOW, TrainingState

RUNS = Path("runs")
BEST = "best.safetensors"


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
    running_mean: float | None
    """Running mean of the reward, each episode with weight 0.01."""
    mean_100: float | None
    """Mean reward of the last 100 episodes."""
    best_reward: float | None
    """Highest reward of an episode."""
    episodes_per_hour: float
    """Rate over the last minute or so."""
    frames_per_second: float
    """Emulated frames per second, likewise."""
    gradient_norm: float
    """Euclidean norm of the summed gradient."""
    weights_checksum: str
    """Of the weights after this update."""


class RunDir:
    """A run's folder. Make one with :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics = path / "metrics.jsonl"
        self._checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, config: TrainConfig) -> "RunDir":
        """A folder for a new run.

        Raises:
            UsageError: there is a run in it already.
            RunError: it cannot be written.
        """
        path = config.run_dir or _unused_name(config.preset)
        run_dir = cls(path)
        try:
            run_dir._checkpoints.mkdir(parents=True, exist_ok=True)
            with (path / "config.json").open("x") as file:
                file.write(_config_text(config))
        except FileExistsError:
            raise UsageError(
                f"run_dir: {path} holds a run already; --resume {path} goes on with it"
            ) from None
        except OSError as error:
            raise RunError(f"run_dir: {path} cannot be written ({error.strerror})") from None
        return run_dir

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """The folder of an existing run.

        Raises:
            UsageError: there is no run in it.
        """
        if not (path / "config.json").is_file():
            raise UsageError(f"resume: {path} holds no run (it has no config.json)")
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

    def save(self, config: TrainConfig, state: TrainingState, *, best: bool) -> Path:
        """Write a checkpoint and delete those no longer kept; ``best``: also as the best one.

        Raises:
            RunError: it cannot be written. What was saved before is still there.
        """
        path = self._checkpoints / f"update-{state.progress.update:08}.safetensors"
        try:
            save_checkpoint(path, config, state)
            if best:
                write_atomically(self._checkpoints / BEST, path.read_bytes())
            for old in self._numbered_checkpoints()[: -config.keep]:
                old.unlink()
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror})") from error
        return path

    def append(self, record: UpdateRecord) -> None:
        """Add a line to metrics.jsonl.

        Raises:
            RunError: it cannot be written.
        """
        try:
            with self._metrics.open("a") as file:
                file.write(json.dumps(asdict(record)) + "\n")
        except OSError as error:
            raise RunError(f"{self._metrics}: cannot be written ({error.strerror})") from error

    def rewind(self, config: TrainConfig, update: int) -> None:
        """Make the folder what it was after ``update`` updates, to go on from there.

        A run that was killed has metrics of updates made after its last checkpoint. They will be
        made again, with the same results.
        """
        write_atomically(self.path / "config.json", _config_text(config).encode())
        if self._metrics.exists():
            lines = self._metrics.read_text().splitlines()
            kept = [line + "\n" for line in lines if _is_record_until(line, update)]
            write_atomically(self._metrics, "".join(kept).encode())

    def _numbered_checkpoints(self) -> list[Path]:
        return sorted(self._checkpoints.glob("update-*.safetensors"))


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
    if path.is_dir():
        return RunDir.open(path).newest_checkpoint()
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    return path


def _unused_name(preset: str) -> Path:
    """A new name in runs/; runs begun within the same second get a number."""
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{preset}"
    path, number = RUNS / stem, 2
    while path.exists():
        path, number = RUNS / f"{stem}_{number}", number + 1
    return path


def _config_text(config: TrainConfig) -> str:
    return json.dumps(config.to_json(), indent=2) + "\n"


def _is_record_until(line: str, update: int) -> bool:
    try:
        return int(json.loads(line)["update"]) <= update
    except ValueError:  # the line a killed process was writing
        return False
