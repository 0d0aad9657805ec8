"""The folder that the start of a run makes, and takes away again where the start fails."""

import contextlib
import itertools
import shutil
from datetime import datetime
from pathlib import Path

RUNS = Path("runs")
_OURS = (
    *("config.json", ".config.json.tmp", "metrics.jsonl", ".metrics.jsonl.tmp", "checkpoints"),
    *("lock", "scrape_target.yml", ".scrape_target.yml.tmp", "tensorboard"),
)
"""What a run may put in its folder before its first update. The settings come first: without them
a folder holds no run."""


class FreshFolder:
    """A folder for a run. What was there before stays when it is removed.

    Args:
        path: where it is, or is to be.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: list[Path] = []  # folders, the outermost first
        self._names: tuple[str, ...] = ()  # what is removed with it
        try:
            for folder in reversed([path, *path.parents]):
                self._make(folder)
            self._names = tuple(name for name in _OURS if not (path / name).exists())
        except OSError:
            self.remove()
            raise

    @classmethod
    def in_runs(cls, preset: str) -> "FreshFolder":
        """A new folder in runs/; of those begun within the same second, later ones get a number."""
        fresh = cls(RUNS)
        fresh._names = ()
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{preset}"
        try:
            suffixes = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
            paths = (RUNS / (stem + suffix) for suffix in suffixes)
            fresh.path = next(path for path in paths if fresh._make(path))
            fresh._names = _OURS
        except OSError:
            fresh.remove()
            raise
        return fresh

    def remove(self) -> None:
        """Remove what a run has put here since, and the folders that were made, if empty then.

        What cannot be removed stays. Whoever calls this tells of what made the start fail.
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
        """Make a folder. False: it is there, or somebody else has made it."""
        if folder.exists():
            return False
        try:
            folder.mkdir()
        except FileExistsError:
            return False
        self._made.append(folder)
        return True
