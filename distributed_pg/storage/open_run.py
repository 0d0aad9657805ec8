"""Opens runs kept in a local folder, or at a URI by way of a local folder that is uploaded."""

import logging
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from distributed_pg.config import AUTO, TrainConfig
from distributed_pg.errors import CheckpointError, RunError, UsageError, writing
from distributed_pg.shell import as_argument
from distributed_pg.storage.checkpoint import load_checkpoint
from distributed_pg.storage.checkpoint_files import CHECKPOINTS, newest_good, update_of
from distributed_pg.storage.fresh_folder import RUNS, FreshFolder
from distributed_pg.storage.killed_start import check_may_begin, clear, has_run
from distributed_pg.storage.object_store import RemoteRun, is_checkpoint, is_uri
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.storage.run_lock import locked
from distributed_pg.storage.uploader import Uploader

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


@contextmanager
def open_run(config: TrainConfig) -> Iterator[RunDir]:
    """Create the folder of a new run, or open that of ``config.resume``, locked to this process.

    With ``resume`` auto, it is opened if there is a run in ``run_dir`` to resume, else created;
    what a killed start has left there is removed.

    If the run is kept at a URI, the folder is a new one in runs/. The first saved state is uploaded
    before training begins, later ones in the background, and the last one by the end of the
    ``with`` block. An existing run at the URI is not touched before the first upload.

    If the block raises an error before this process has made an update, everything created for it
    is removed, at the URI as well.

    Args:
        config: the run's settings and location.

    Yields:
        The run's folder.

    Raises:
        UsageError: the location already holds a run, or none to resume, or, with auto, something
            else; or another process trains there.
        RunError: the location cannot be read or written.
    """
    location = config.location
    if is_uri(location):
        remote = RemoteRun(location)
        uploader = Uploader(remote)
        run_dir = _prepare(config, remote, uploader)
        with _kept(run_dir), _uploaded(run_dir, uploader):
            yield run_dir
    elif config.resume == AUTO:
        with _begun_or_opened(config, Path(config.run_dir or "")) as run_dir:
            yield run_dir
    else:
        is_new = config.resume is None
        run_dir = RunDir.create(config) if is_new else RunDir.open(Path(config.resume or ""))
        with _kept(run_dir):
            yield run_dir


@contextmanager
def _begun_or_opened(config: TrainConfig, folder: Path) -> Iterator[RunDir]:
    """Lock the folder, then open the run in it or create one; remove it if the start fails."""
    check_may_begin(folder)  # before a lock is written into a folder of something else
    with writing(f"run_dir: {folder}"):
        fresh = FreshFolder.unclaimed(folder)
    run_dir = None
    try:
        with locked(folder):
            run_dir = RunDir.open(folder) if has_run(folder) else _anew(config, fresh)
            yield run_dir
    except Exception:
        if run_dir is None:
            fresh.remove()
        else:
            run_dir.discard()
        raise


def _anew(config: TrainConfig, fresh: FreshFolder) -> RunDir:
    check_may_begin(fresh.path)
    clear(fresh.path)
    fresh.claim()
    return RunDir.create(config, fresh=fresh)


@contextmanager
def _kept(run_dir: RunDir) -> Iterator[None]:
    """Lock the folder; remove it if the run fails before its first update."""
    try:
        with run_dir.lock():
            yield
    except Exception:
        run_dir.discard()
        raise


@contextmanager
def _uploaded(run_dir: RunDir, uploader: Uploader) -> Iterator[None]:
    """Upload everything that was saved, at the end; withdraw a start that failed."""
    try:
        yield
    except BaseException as error:
        # An interrupted run stays, however early, since the user may resume it.
        is_failed_start = isinstance(error, Exception) and not run_dir.has_updates
        finish = uploader.withdraw if is_failed_start else uploader.end
        try:
            finish()
        except RunError as second:  # logged, so that it does not hide the error that ended the run
            _LOG.error(str(second))
        raise
    uploader.end()


def run_exists(location: str | Path) -> bool:
    """Whether there is a run to resume.

    Args:
        location: a folder or URI.

    Raises:
        UsageError: the kind of store is unknown, or its package is not installed.
        RunError: the store cannot be read.
    """
    if is_uri(location):
        return RemoteRun(location).pointer() is not None
    return has_run(Path(location))


def saved_config(location: str | Path) -> TrainConfig:
    """The settings of a run, from its newest good checkpoint.

    Args:
        location: the run's folder or URI.

    Raises:
        UsageError: there is no run.
        RunError: the run cannot be read.
    """
    return load_newest_at(location, load_checkpoint).config


def load_newest_at(location: str | Path, load: Callable[[Path], T]) -> T:
    """Load the newest good checkpoint of a run.

    A warning names each newer one that is damaged, with the reason.

    Args:
        location: the run's folder or URI.
        load: reads a checkpoint file; raises CheckpointError if it is not good.

    Returns:
        The result of ``load``.

    Raises:
        UsageError: there is no run.
        RunError: the run cannot be read, or none of its checkpoints is good.
    """
    if not is_uri(location):
        folder = RunDir.open(Path(location)).path / CHECKPOINTS
        return newest_good(folder, load)[1]
    remote, tried, reasons = RemoteRun(location), list[str](), list[CheckpointError]()

    def next_newest(names: Collection[str]) -> list[str]:
        untried = [name for name in names if is_checkpoint(name) and name not in tried]
        # The best one has no number, so it is tried last.
        newest = sorted(untried, key=lambda name: update_of(name.rpartition("/")[2]))[-1:]
        tried.extend(newest)
        return newest

    while True:
        with tempfile.TemporaryDirectory() as folder_name:
            try:
                found = remote.fetch(Path(folder_name), next_newest)
                if not found:
                    break
                loaded = load(found[0])
            except CheckpointError as error:
                reasons.append(error)
                continue
        for reason in reasons:
            _LOG.warning(f"{reason}; using {found[0].name}")
        return loaded
    if reasons:
        raise RunError(f"no checkpoint is good; the newest: {reasons[0]}") from reasons[0]
    raise RunError(f"{location}: there is no checkpoint")


def _prepare(config: TrainConfig, remote: RemoteRun, uploader: Uploader) -> RunDir:
    if config.resume == AUTO:
        if remote.pointer() is not None:
            return _fetch(config, remote, uploader)
        remote.check_is_free()
    return (_create if config.may_begin else _fetch)(config, remote, uploader)


def _create(config: TrainConfig, remote: RemoteRun, uploader: Uploader) -> RunDir:
    if remote.pointer() is not None:
        to_resume = f"--resume {as_argument(remote.uri)}"
        raise UsageError(f"run_dir: {remote.uri} holds a run already; {to_resume} continues it")
    return RunDir.create(replace(config, run_dir=None, resume=None), uploader)


def _fetch(config: TrainConfig, remote: RemoteRun, uploader: Uploader) -> RunDir:
    """Copy the run to a new local folder; the run at the URI is not changed."""
    remote.take_over()
    with writing(f"{RUNS}:"):
        fresh = FreshFolder.in_runs(config.preset)
    try:
        remote.fetch(fresh.path, lost=_LOG.warning)
        return RunDir.open(fresh.path, fresh, uploader)
    except (RunError, UsageError):
        fresh.remove()
        raise
