"""The folder that is created for a new run or sweep, and removed again if the start fails."""

import contextlib
import itertools
import shutil
from datetime import datetime
from pathlib import Path

RUNS = Path("runs")
_OURS = (
    *("config.json", ".config.json.tmp", "metrics.jsonl", ".metrics.jsonl.tmp", "checkpoints"),
    *("lock", "scrape_target.yml", ".scrape_target.yml.tmp", "tensorboard", "wandb"),
    *("sweep.json", ".sweep.json.tmp"),
)
"""Names that a run or a sweep may create in its folder before its first update. The settings come
first, since without them a folder holds no run."""


class FreshFolder:
    """A folder for a run, created if needed. Removing it leaves what was there before.

    Args:
        path: the folder.

    Raises:
        OSError: the folder cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: list[Path] = []  # created folders, outermost first
        self._names: tuple[str, ...] = ()  # names that remove() deletes
        try:
            for folder in reversed([path, *path.parents]):
                self._make(folder)
            self._names = tuple(name for name in _OURS if not (path / name).exists())
        except OSError:
            self.remove()
            raise

    @classmethod
    def in_runs(cls, kind: str) -> "FreshFolder":
        """Create a folder in runs/, named by date and kind.

        Those created in the same second get a number.

        Args:
            kind: the preset's name, or "sweep".

        Raises:
            OSError: the folder cannot be created.
        """
        fresh = cls(RUNS)
        fresh._names = ()
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{kind}"
        try:
            suffixes = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
            paths = (RUNS / (stem + suffix) for suffix in suffixes)
            fresh.path = next(path for path in paths if fresh._make(path))
            fresh._names = _OURS
        except OSError:
            fresh.remove()
            raise
        return fresh

    @classmethod
    def unclaimed(cls, path: Path) -> "FreshFolder":
        """Create a folder, if needed, in which another process may begin at the same time.

        Until :meth:`claim`, what is in it counts as the other's, and is not removed.

        Raises:
            OSError: the folder cannot be created.
        """
        fresh = cls(path)
        fresh._names = ()
        return fresh

    def claim(self) -> None:
        """Count all that a run creates here as this process's. The caller has the lock."""
        self._names = _OURS

    def remove(self) -> None:
        """Remove what a run has created here, then the created folders that are empty.

        Errors are ignored, since the caller reports the error that made the start fail.
        """
        for name in self._names:
            path = self.path / name
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _make(self, folder: Path) -> bool:
        """Create a folder; False if it exists, or another process has just created it."""
        if folder.exists():
            return False
        try:
            folder.mkdir()
        except FileExistsError:
            return False
        self._made.append(folder)
        return True
