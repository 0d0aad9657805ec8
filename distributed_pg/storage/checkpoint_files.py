"""The checkpoints in a run's folder: which is the newest that is good, and which are kept."""

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
"""Ends the name of a checkpoint that was found damaged and set aside."""
_NUMBERED = re.compile(r"update-(\d+)\.safetensors")

T = TypeVar("T")


def checkpoint_name(update: int) -> str:
    """The name of the checkpoint that is made after ``update`` updates."""
    return f"update-{update:08}.safetensors"


def update_of(name: str) -> int:
    """The update in the name of a checkpoint; -1: it has none, as the best one has not."""
    found = _NUMBERED.fullmatch(name)
    return int(found[1]) if found else -1


def numbered(folder: Path) -> list[Path]:
    """The checkpoints in ``folder`` but for the best one, the oldest first."""
    found = [path for path in folder.glob("update-*.safetensors") if update_of(path.name) >= 0]
    return sorted(found, key=lambda path: update_of(path.name))


def newest_good(folder: Path, load: Callable[[Path], T]) -> tuple[Path, T]:
    """The newest checkpoint in ``folder`` that can be loaded, and what ``load`` makes of it.

    The best one comes last. A warning names each one tried that is not good, and why.

    Raises:
        RunError: there is none.
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
            _LOG.warning(f"{reason}; going on from {path.name}")
        return path, loaded
    raise RunError(f"no checkpoint is good; the newest: {damaged[0]}") from damaged[0]


def prune(folder: Path, update: int, keep: int) -> None:
    """Delete the checkpoints before that of ``update`` but for the last, so that ``keep`` stay.

    Raises:
        OSError: one cannot be deleted.
    """
    older = [path for path in numbered(folder) if update_of(path.name) < update]
    for path in older[: max(0, len(older) + 1 - keep)]:
        path.unlink(missing_ok=True)


def set_newer_aside(folder: Path, update: int, loaded: Path | None) -> list[Path]:
    """Rename the checkpoints beyond ``update``, which were found damaged; returns their new paths.

    A run that goes on from ``update`` would count them as newer than those that it will make.

    Args:
        folder: where the checkpoints are.
        update: where the run goes on from.
        loaded: the checkpoint that says so. If its name is that of another update, it gets its own.

    Raises:
        OSError: one cannot be renamed.
    """
    if loaded is not None and update_of(loaded.name) > update:
        loaded.replace(folder / checkpoint_name(update))
    newer = [path for path in numbered(folder) if update_of(path.name) > update]
    return [path.replace(path.with_name(path.name + DAMAGED)) for path in newer]
