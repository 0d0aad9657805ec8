"""The folder of a run: config.json, metrics.jsonl and checkpoints/."""

import errno
import json
import os
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from distributed_pg.algo.state import TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.errors import CheckpointError, RunError, UsageError, one_line, writing
from distributed_pg.shell import as_argument
from distributed_pg.storage import checkpoint_files
from distributed_pg.storage.checkpoint import (
    DECODE_ERRORS,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from distributed_pg.storage.checkpoint_files import BEST, CHECKPOINTS
from distributed_pg.storage.fresh_folder import RUNS, FreshFolder
from distributed_pg.storage.metrics import METRICS, UpdateRecord, is_record_until
from distributed_pg.storage.run_lock import locked
from distributed_pg.storage.tensor_file import write_atomically
from distributed_pg.storage.uploader import Uploader

CONFIG = "config.json"


class RunDir:
    """A run's folder. Get one with :meth:`create` or :meth:`open`.

    Args:
        path: the folder.
        fresh: the same folder, if it was created for this process.
        uploader: uploads each saved state, if the run is kept at a URI.
    """

    def __init__(
        self, path: Path, fresh: FreshFolder | None = None, uploader: Uploader | None = None
    ) -> None:
        self.path = path
        self.has_updates = False
        """Whether this process has made an update."""
        self.is_new = False
        """Whether the run begins in this process."""
        self._fresh = fresh
        self._uploader = uploader
        self._begun_at = 0
        self._metrics = path / METRICS
        self._checkpoints = path / CHECKPOINTS

    @classmethod
    def create(
        cls,
        config: TrainConfig,
        uploader: Uploader | None = None,
        fresh: FreshFolder | None = None,
    ) -> "RunDir":
        """Create the folder of a new run.

        Args:
            config: the run's settings, with the folder in ``run_dir``.
            uploader: uploads each saved state, if the run is kept at a URI.
            fresh: the folder, if it was created for this process already.

        Raises:
            UsageError: the folder already holds a run.
            RunError: the folder cannot be written; whatever was created is removed.
        """
        with writing(f"run_dir: {config.run_dir or RUNS}"):
            if fresh is None:
                fresh = (
                    FreshFolder.in_runs(config.preset)
                    if config.run_dir is None
                    else FreshFolder(Path(config.run_dir))
                )
            run_dir = cls(fresh.path, fresh, uploader)
            run_dir.is_new = True
            if any((fresh.path / name).exists() for name in (CONFIG, METRICS, CHECKPOINTS)):
                raise run_dir._holds_a_run()
            try:
                run_dir._checkpoints.mkdir()
                run_dir._write(config)
            except FileExistsError:  # another process has just started a run here
                raise run_dir._holds_a_run() from None
            except OSError:
                run_dir.discard()
                raise
        return run_dir

    @classmethod
    def open(
        cls, path: Path, fresh: FreshFolder | None = None, uploader: Uploader | None = None
    ) -> "RunDir":
        """Open the folder of an existing run.

        Args:
            path: the folder.
            fresh: the same folder, if it was created for this process.
            uploader: uploads each saved state, if the run is kept at a URI.

        Raises:
            UsageError: there is no run in the folder.
        """
        try:
            (path / CONFIG).open().close()
        except OSError as error:
            for folder in path.parents[:2]:
                if (folder / CONFIG).is_file():
                    raise UsageError(
                        f"{path} is a part of the run in {folder}; give {folder}"
                    ) from None
            reason = f"{CONFIG}: {error.strerror}" if path.exists() else "there is no such folder"
            raise UsageError(f"{path} holds no run ({reason})") from None
        return cls(path, fresh, uploader)

    def discard(self) -> None:
        """Remove what was created for this process, unless it has made an update.

        A folder that existed before stays, with its previous contents.
        """
        if self._fresh is not None and not self.has_updates:
            self._fresh.remove()

    @cached_property
    def best_mean(self) -> float | None:
        """The mean of the last 100 episodes at the best checkpoint on disk; None without one."""
        try:
            return load_checkpoint(self._checkpoints / BEST).state.progress.mean_100
        except CheckpointError:  # missing or unusable
            return None

    def newest_checkpoint(self) -> Path:
        """The file of the latest checkpoint.

        Raises:
            RunError: there is none.
        """
        files = checkpoint_files.numbered(self._checkpoints)
        if not files:
            raise RunError(f"{self.path}: there is no checkpoint in {self._checkpoints}")
        return files[-1]

    def load_newest(self) -> tuple[Path, Checkpoint]:
        """Load the newest good checkpoint.

        A warning names each newer one that is damaged, with the reason.

        Returns:
            The file and its contents.

        Raises:
            RunError: there is no good checkpoint.
        """
        return checkpoint_files.newest_good(self._checkpoints, load_checkpoint)

    def write_config(self, config: TrainConfig) -> None:
        """Write config.json.

        Raises:
            RunError: it cannot be written.
        """
        with writing(f"{self.path / CONFIG}:"):
            self._write(config)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from training here, as :func:`locked` does."""
        return locked(self.path)

    def check_ours(self) -> None:
        """Check that no other process has taken over the run.

        Raises:
            TakenOverError: another process uploads to the run's URI.
        """
        if self._uploader is not None:
            self._uploader.check()

    def save(self, config: TrainConfig, state: TrainingState, *, best: bool) -> Path:
        """Write a checkpoint, and delete old ones beyond ``config.keep``.

        The lines of metrics.jsonl are flushed to disk first.

        Args:
            config: the run's settings.
            state: the state to save.
            best: also save it as the best checkpoint.

        Returns:
            The file of the checkpoint.

        Raises:
            RunError: the checkpoint cannot be written. Earlier ones are intact.
        """
        update = state.progress.update
        path = self._checkpoints / checkpoint_files.checkpoint_name(update)
        with writing(f"{path}:"):
            if self._metrics.exists():
                with self._metrics.open("a") as file:
                    os.fsync(file.fileno())
            if best:
                save_checkpoint(self._checkpoints / BEST, config, state)
                self.best_mean = state.progress.mean_100
            save_checkpoint(path, config, state)
            checkpoint_files.prune(self._checkpoints, update, config.keep)
        self.has_updates |= update > self._begun_at
        self._upload()
        return path

    def append(self, record: UpdateRecord) -> None:
        """Add a line to metrics.jsonl.

        Raises:
            RunError: the line cannot be written.
        """
        self.has_updates = True
        line = json.dumps(asdict(record)).encode() + b"\n"
        with writing(f"{self._metrics}:"), self._metrics.open("ab", buffering=0) as file:
            end = file.tell()
            if file.write(line) != len(line):  # the disk is full
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def rewind(
        self, config: TrainConfig, update: int, loaded: Path | None = None
    ) -> tuple[Path, list[Path]]:
        """Reset the folder to its state after ``update`` updates, to resume from there.

        A killed run may have metrics of updates after its last checkpoint. Those updates will be
        repeated, with the same results. Checkpoints after ``update`` were found damaged.

        Args:
            config: the run's new settings.
            update: the update to resume from.
            loaded: its checkpoint.

        Returns:
            The checkpoint to resume from, and those that were set aside.

        Raises:
            RunError: the folder cannot be written.
        """
        with writing(f"{self.path}:"):
            self._write(config)
            if self._metrics.exists():
                lines = self._metrics.read_bytes().splitlines()
                kept = [line + b"\n" for line in lines if is_record_until(line, update)]
                write_atomically(self._metrics, b"".join(kept))
            aside = checkpoint_files.set_newer_aside(self._checkpoints, update, loaded)
        self._begun_at = update
        self._upload()
        own = self._checkpoints / checkpoint_files.checkpoint_name(update)
        return loaded if loaded is not None and loaded.exists() else own, aside

    def _write(self, config: TrainConfig) -> None:
        text = json.dumps(config.to_json(), indent=2) + "\n"
        write_atomically(self.path / CONFIG, text.encode())

    def _upload(self) -> None:
        if self._uploader is not None:
            self._uploader.upload(self.path)

    def _holds_a_run(self) -> UsageError:
        to_resume = f"--resume {as_argument(self.path)}"
        return UsageError(f"run_dir: {self.path} holds a run already; {to_resume} continues it")


def parse_config(text: bytes, path: str) -> TrainConfig:
    """Parse the text of a config.json.

    Args:
        text: the contents.
        path: the file, for the message.

    Raises:
        RunError: the settings are invalid.
    """
    try:
        return TrainConfig.from_json(json.loads(text))
    except DECODE_ERRORS as error:
        raise RunError(f"{path}: cannot be used ({one_line(error)})") from None
