"""The folders that Ray creates for each session and never removes."""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from distributed_pg.errors import RunError
from distributed_pg.runtime import _ray_private

_MARK = "distributed_pg.lock"
"""File in the folder of a session of ours; locked as long as the process that created it lives."""
_LONGEST = 107 if sys.platform == "linux" else 103
"""Maximum length of a socket's path in bytes."""
_IN_THE_FOLDER = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"


class SessionFolder:
    """The session folder of the local Ray that was just started."""

    def __init__(self) -> None:
        folder = _ray_private.session_folder()
        self._path = None if folder is None else Path(folder)
        self._lock = None if self._path is None else _locked(self._path)

    def remove(self) -> None:
        """Remove the folder, after that Ray has ended."""
        if self._path is not None and self._lock is not None:
            _remove(self._path, self._lock)


def remove_left_over() -> None:
    """Remove the folders of our earlier sessions whose process was killed."""
    temporary = _ray_private.temporary_folder()
    if temporary is None:
        return
    for mark in Path(temporary, "ray").glob(f"session_*/{_MARK}"):
        lock = _locked(mark.parent)
        if lock is not None:
            _remove(mark.parent, lock)


def check_temporary_folder() -> None:
    """Check that Ray can create its folder.

    Raises:
        RunError: the parent folder cannot be written, or its path is too long for Ray's sockets.
    """
    folder = _ray_private.temporary_folder()
    if folder is None:
        return
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    named = f"{variable or 'the folder for temporary files'}: {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(f"{named} is not a writable folder, which Ray needs")
    most = _LONGEST - len(_IN_THE_FOLDER) - 1
    if sys.platform != "win32" and len(os.fsencode(folder)) > most:
        raise RunError(
            f"{named} is too long for Ray's sockets; set {variable or 'TMPDIR'} to a folder with "
            f"at most {most} characters in its path"
        )


def _remove(folder: Path, lock: FileLock) -> None:
    """Remove a session's folder, the mark last, so that a later session can remove what is left."""
    for path in folder.iterdir():
        if path.name != _MARK:
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):  # already removed
                path.unlink()
    lock.release()
    if all(path.name == _MARK for path in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path) -> FileLock | None:
    """Lock a session's folder; None if another process holds the lock or locking fails."""
    lock = FileLock(folder / _MARK)
    try:
        lock.acquire(timeout=0)
    # Held by another process (a Timeout is an OSError), another user's, removed meanwhile, or on a
    # file system without locks (filelock then raises the second): it stays where it is.
    except (OSError, NotImplementedError):
        return None
    return lock
