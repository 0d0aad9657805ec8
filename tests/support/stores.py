"""Failing object stores, and files to keep in them, for tests."""

from pathlib import Path
from typing import Any

import fsspec

from distributed_pg.storage.object_store import RemoteRun

CHECKPOINT = "checkpoints/update-00000001.safetensors"


def files_of_a_run(folder: Path) -> Path:
    """Fill a folder with files named like those of a run."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"update": 1}\n')
    (folder / CHECKPOINT).write_bytes(b"one")
    (folder / "lock").write_text("process 1")
    return folder


def fetched(uri: str, folder: Path) -> dict[str, bytes]:
    """Copy the run at a URI into a folder; return its files by name."""
    RemoteRun(uri).fetch(folder)
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class FailingStore:
    """A file system whose write calls fail after the first ``calls``."""

    def __init__(self, fs: Any, calls: int) -> None:
        self._fs = fs
        self._left = calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._fs, name)
        if name not in ("pipe_file", "rm_file"):
            return method

        def called(*arguments: Any) -> Any:
            if self._left == 0:
                raise ConnectionError("gone")
            self._left -= 1
            return method(*arguments)

        return called


def stored(uri: str) -> dict[str, bytes]:
    """Paths and contents of everything below a ``memory://`` URI."""
    memory = fsspec.filesystem("memory")
    return {path: memory.cat_file(path) for path in memory.find(uri.removeprefix("memory:/"))}
