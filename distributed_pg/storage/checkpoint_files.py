"""The checkpoint files of a run: names, the newest good one, and which to keep."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from distributed_pg.errors import CheckpointError, RunError

_LOG = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
BEST = "best.safetensors"
DAMAGED = ".damaged"
"""Suffix of a checkpoint that was found damaged and set aside."""
_NUMBERED = re.compile(r"update-(\d+)\.safetensors")

T = TypeVar("T")


def checkpoint_name(update: int) -> str:
    """The name of the checkpoint after ``update`` updates."""
    return f"update-{update:08}.safetensors"


def update_of(name: str) -> int:
    """The update in a checkpoint's name; -1 if it has none, like the best one."""
    found = _NUMBERED.fullmatch(name)
    return int(found[1]) if found else -1


def numbered(folder: Path) -> list[Path]:
    """The checkpoints in ``folder`` except the best one, oldest first."""
    found = [path for path in folder.glob("update-*.safetensors") if update_of(path.name) >= 0]
    return sorted(found, key=lambda path: update_of(path.name))


def newest_good(folder: Path, load: Callable[[Path], T]) -> tuple[Path, T]:
    """Load the newest good checkpoint; the best one is tried last.

    A warning names each damaged one that was tried before, with the reason.

    Args:
        folder: the folder of the checkpoints.
        load: reads a checkpoint file; raises CheckpointError if it is not good.

    Returns:
        The file and the result of ``load``.

    Raises:
        RunError: there is no good checkpoint.
    """
    candidates = [*reversed(numbered(folder)), folder / BEST]
    if not any(path.exists() for path in candidates):
        raise RunError(f"{folder.parent}: there is no checkpoint in {folder}")
    damaged = []
    for path in candidates:
        try:
            loaded = load(path)
        except CheckpointError as error:
            damaged.append(error)
            continue
        for reason in damaged:
            _LOG.warning(f"{reason}; using {path.name}")
        return path, loaded
    raise RunError(f"no checkpoint is good; the newest: {damaged[0]}") from damaged[0]


def prune(folder: Path, update: int, keep: int) -> None:
    """Delete the oldest checkpoints, so that ``keep`` of them up to ``update`` remain.

    Args:
        folder: the folder of the checkpoints.
        update: the update of the checkpoint just written.
        keep: the number of checkpoints to keep, including that one.

    Raises:
        OSError: a file cannot be deleted.
    """
    older = [path for path in numbered(folder) if update_of(path.name) < update]
    for path in older[: max(0, len(older) + 1 - keep)]:
        path.unlink(missing_ok=True)


def set_newer_aside(folder: Path, update: int, loaded: Path | None) -> list[Path]:
    """Rename the checkpoints after ``update``, which were found damaged.

    Otherwise a run resumed from ``update`` would treat them as newer than its own.

    Args:
        folder: the folder of the checkpoints.
        update: the update that the run resumes from.
        loaded: its checkpoint; renamed if its name is that of a later update.

    Returns:
        The new paths of the checkpoints set aside.

    Raises:
        OSError: a file cannot be renamed.
    """
    if loaded is not None and update_of(loaded.name) > update:
        loaded.replace(folder / checkpoint_name(update))
    newer = [path for path in numbered(folder) if update_of(path.name) > update]
    return [path.replace(path.with_name(path.name + DAMAGED)) for path in newer]
