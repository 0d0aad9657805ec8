"""What a killed start leaves in a folder: less than a run, and nothing that anyone would miss."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from distributed_pg.errors import RunError, UsageError, writing
from distributed_pg.storage.checkpoint_files import BEST, CHECKPOINTS, numbered
from distributed_pg.storage.run_dir import CONFIG
from distributed_pg.storage.run_lock import LOCK

_TEMPORARY_CONFIG = f".{CONFIG}.tmp"
_OTHERS = (LOCK, _TEMPORARY_CONFIG)
_TEMPORARY_CHECKPOINT = re.compile(r"\.(best|update-\d+)\.safetensors\.tmp")
_CONFIG_BEGINS = b'{\n  "preset": '
"""How every config.json of a run begins."""


def has_run(folder: Path) -> bool:
    """Whether a run in the folder has come so far that it can be resumed."""
    checkpoints = folder / CHECKPOINTS
    has_checkpoint = bool(numbered(checkpoints)) or (checkpoints / BEST).exists()
    return has_checkpoint and (folder / CONFIG).is_file()


def check_may_begin(folder: Path) -> None:
    """Check that a folder holds a run or nothing but what a killed start leaves, or is missing.

    Raises:
        UsageError: it holds something else; the message names it.
        RunError: it cannot be read.
    """
    try:
        strange = next(_strange(folder), None)
    except FileNotFoundError:  # the folder, or a file that a starting run has just renamed
        return
    except OSError as error:
        raise RunError(f"run_dir: {folder} cannot be read ({error.strerror})") from None
    # Asked last, since a run that starts at this moment may have come so far by now.
    if strange is not None and not has_run(folder):
        raise UsageError(
            f"run_dir: {folder} holds something else, {strange.relative_to(folder)}; resume auto "
            "needs a run, or a new or empty folder to begin one in"
        )


def clear(folder: Path) -> None:
    """Remove what a killed start has left. The caller has the lock, and has checked the folder.

    Raises:
        RunError: it cannot be removed.
    """
    with writing(f"run_dir: {folder}"):
        for name in (CONFIG, _TEMPORARY_CONFIG):
            (folder / name).unlink(missing_ok=True)
        if (folder / CHECKPOINTS).exists():
            shutil.rmtree(folder / CHECKPOINTS)


def _strange(folder: Path) -> Iterator[Path]:
    """What no killed start leaves."""
    for path in sorted(folder.iterdir()):
        if path.name == CHECKPOINTS and path.is_dir() and not path.is_symlink():
            files = sorted(path.iterdir())
            yield from (file for file in files if not _TEMPORARY_CHECKPOINT.fullmatch(file.name))
        elif not (_may_be_ours(path) if path.name == CONFIG else path.name in _OTHERS):
            yield path


def _may_be_ours(path: Path) -> bool:
    """Whether a file is a config.json of a run, perhaps cut short."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        found = file.read(len(_CONFIG_BEGINS))
    return _CONFIG_BEGINS.startswith(found)
