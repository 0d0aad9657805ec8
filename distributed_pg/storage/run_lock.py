"""The lock that restricts a run's folder to one process."""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

from distributed_pg.errors import RunError, UsageError

_LOG = logging.getLogger(__name__)

LOCK = "lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of NFS without its lock service, Lustre without ``-o flock`` and some FUSE mounts."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training in ``folder`` during the ``with`` block.

    The operating system holds the lock on an open file and releases it when the process ends, for
    whatever reason. If the file system does not support locks, the block runs after a warning.

    Args:
        folder: the run's folder.

    Raises:
        UsageError: another process trains here; the message names it.
        RunError: the folder cannot be written.
    """
    path = folder / LOCK
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise _no_lock(path, error) from error
    with file:
        try:
            if not _acquire(file, path):
                raise UsageError(f"{folder} is in use by {_holder(file)}")
            # On Windows no other process can read the first byte of a locked file.
            file.truncate(0)
            file.write(f"\nprocess {os.getpid()} on {socket.gethostname()}".encode())
        except OSError as error:
            raise _no_lock(path, error) from error
        yield


def _acquire(file: BinaryIO, path: Path) -> bool:
    try:
        return lock_descriptor(file.fileno(), blocking=False)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _LOG.warning(
            f"{path}: the file system does not support locks ({error.strerror}); nothing keeps "
            "another process from training in this folder as well"
        )
        return True


def _holder(file: BinaryIO) -> str:
    file.seek(1)
    return file.read(100).decode(errors="replace") or "another process"


def _no_lock(path: Path, error: OSError) -> RunError:
    return RunError(f"{path}: cannot be locked ({error.strerror})")
