"""The folder of a sweep: sweep.json, stopped.json, and a run's folder for each trial."""

import json
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed_pg.algo.state import Progress
from distributed_pg.errors import CheckpointError, RunError, UsageError, one_line, writing
from distributed_pg.shell import as_argument
from distributed_pg.storage.checkpoint import DECODE_ERRORS, saved_progress
from distributed_pg.storage.checkpoint_files import BEST, CHECKPOINTS, numbered
from distributed_pg.storage.fresh_folder import RUNS, FreshFolder
from distributed_pg.storage.metrics import METRICS, last_record
from distributed_pg.storage.run_dir import CONFIG
from distributed_pg.storage.run_lock import LOCK, locked
from distributed_pg.storage.tensor_file import write_atomically
from distributed_pg.sweep.plan import SweepPlan, Trial
from distributed_pg.training.learner import stop_reached

SWEEP = "sweep.json"
STOPPED = "stopped.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Stopped:
    """Where a trial was stopped because it was worse than the others."""

    frames: int
    """Emulated frames of the rung."""
    mean_100: float
    """The trial's mean reward there."""


class SweepFolder:
    """A sweep's folder. Get one with :meth:`create` or :meth:`open`.

    Args:
        path: the folder.
        plan: what the sweep trains.
        fresh: the same folder, if it was created for this process.
    """

    def __init__(self, path: Path, plan: SweepPlan, fresh: FreshFolder | None = None) -> None:
        self.path = path
        self.plan = plan
        self._fresh = fresh
        self.trials = list(plan.trials())
        self.stopped = _read_stopped(path / STOPPED)
        """The trials that were stopped early, by name."""

    @classmethod
    def create(cls, path: Path | None, plan: SweepPlan) -> "SweepFolder":
        """Create the folder of a new sweep.

        Args:
            path: the folder; None: a new one in runs/.
            plan: what the sweep trains.

        Raises:
            UsageError: the folder holds something else.
            RunError: it cannot be written.
        """
        with writing(f"run_dir: {path or RUNS}"):
            fresh = FreshFolder.in_runs("sweep") if path is None else FreshFolder(path)
            path = fresh.path
            if (path / SWEEP).exists():
                to_resume = f"--resume {as_argument(path)}"
                raise UsageError(f"run_dir: {path} holds a sweep already; {to_resume} continues it")
            # The lock may be of a sweep that was refused.
            if found := sorted({file.name for file in path.iterdir()} - {LOCK}):
                raise UsageError(f"run_dir: {path} is not empty: it has {found[0]}")
        return cls(path, plan, fresh)

    @classmethod
    def open(cls, path: Path) -> "SweepFolder":
        """Open the folder of an existing sweep.

        Raises:
            UsageError: there is no sweep.
            RunError: its files cannot be read.
        """
        file = path / SWEEP
        try:
            values = json.loads(file.read_bytes())
            if values["format"] != _FORMAT:
                raise RunError(
                    f"{file}: it has format {one_line(values['format'], 20)}; this version of "
                    f"distributed_pg reads format {_FORMAT}"
                )
            return cls(path, SweepPlan.from_json(values))
        except OSError as error:
            raise UsageError(f"{path} holds no sweep ({SWEEP}: {error.strerror})") from None
        except (*DECODE_ERRORS, UsageError) as error:
            raise RunError(f"{file}: cannot be used ({one_line(error)})") from None

    def extended(self, plan: SweepPlan) -> "SweepFolder":
        """The same sweep with other stop conditions, or with more trials.

        Raises:
            UsageError: a trial of the saved plan would be missing or have other settings.
        """
        wanted = {trial.name: trial.config for trial in plan.trials()}
        for trial in self.trials:
            config = wanted.get(trial.name)
            if config is None:
                raise UsageError(
                    f"resume: the sweep in {self.path} has the trial {trial.name}; name its seeds "
                    "and settings as well, or leave them out"
                )
            if changed := config.changed_settings(trial.config):
                name = changed[0]
                raise UsageError(
                    f"{name}: the sweep in {self.path} has {getattr(trial.config, name)}, not "
                    f"{getattr(config, name)}"
                )
        return SweepFolder(self.path, plan)

    def discard(self) -> None:
        """Remove what was created for this process, unless a trial has begun."""
        if self._fresh is not None and not any(map(self.has_begun, self.trials)):
            self._fresh.remove()

    def save_plan(self) -> None:
        """Write sweep.json.

        Raises:
            RunError: it cannot be written.
        """
        text = json.dumps({"format": _FORMAT, **self.plan.to_json()}, indent=2) + "\n"
        with writing(f"{self.path / SWEEP}:"):
            write_atomically(self.path / SWEEP, text.encode())

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from training this sweep, as :func:`locked` does."""
        return locked(self.path)

    def run_of(self, trial: Trial) -> Path:
        """The folder of the trial's run."""
        return self.path / trial.name

    def log_of(self, trial: Trial) -> Path:
        """The file with the output of the trial's processes."""
        return self.path / f"{trial.name}.log"

    def has_begun(self, trial: Trial) -> bool:
        """Whether the trial has a checkpoint to resume from."""
        checkpoints = self.run_of(trial) / CHECKPOINTS
        return bool(numbered(checkpoints)) or (checkpoints / BEST).exists()

    def clear(self, trial: Trial) -> None:
        """Remove what a trial left that was killed before its first checkpoint.

        Raises:
            RunError: it cannot be removed.
        """
        run = self.run_of(trial)
        with writing(f"{run}:"):
            for name in (CONFIG, METRICS):
                (run / name).unlink(missing_ok=True)
            if (run / CHECKPOINTS).exists():
                shutil.rmtree(run / CHECKPOINTS)

    def is_done(self, trial: Trial) -> bool:
        """Whether the trial's newest checkpoint satisfies its stop conditions."""
        progress = self._saved_progress(trial)
        return progress is not None and stop_reached(trial.config, progress, progress.wall_seconds)

    def last_record(self, trial: Trial) -> dict[str, Any] | None:
        """The last line of the trial's metrics; None if there is none yet."""
        return last_record(self.run_of(trial) / METRICS)

    def stop(self, trial: Trial, at: Stopped) -> None:
        """Record that a trial was stopped early.

        Raises:
            RunError: stopped.json cannot be written.
        """
        self.stopped[trial.name] = at
        values = {
            name: {"frames": at.frames, "mean_100": at.mean_100}
            for name, at in self.stopped.items()
        }
        with writing(f"{self.path / STOPPED}:"):
            write_atomically(self.path / STOPPED, (json.dumps(values, indent=2) + "\n").encode())

    def _saved_progress(self, trial: Trial) -> Progress | None:
        """The progress at the newest checkpoint; None if there is none, or it is damaged."""
        files = numbered(self.run_of(trial) / CHECKPOINTS)
        try:
            return saved_progress(files[-1]) if files else None
        except CheckpointError:  # resuming the run deals with it
            return None


def is_sweep(location: str | Path) -> bool:
    """Whether a location is the folder of a sweep; no URI is."""
    return (Path(location) / SWEEP).is_file()


def _read_stopped(file: Path) -> dict[str, Stopped]:
    try:
        values = json.loads(file.read_bytes())
        return {
            name: Stopped(int(at["frames"]), float(at["mean_100"])) for name, at in values.items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror})") from None
    except DECODE_ERRORS as error:
        raise RunError(f"{file}: cannot be used ({one_line(error)})") from None
