"""Where a run is kept: in a folder, or in a folder of this machine that is uploaded at a URI."""

import logging
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from distributed_pg.config import TrainConfig
from distributed_pg.errors import CheckpointError, RunError, UsageError, writing
from distributed_pg.storage.checkpoint import load_checkpoint
from distributed_pg.storage.checkpoint_files import CHECKPOINTS, newest_good, update_of
from distributed_pg.storage.fresh_folder import RUNS, FreshFolder
from distributed_pg.storage.object_store import RemoteRun, is_checkpoint, is_uri
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.storage.uploader import Uploader

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


@contextmanager
def open_run(config: TrainConfig) -> Iterator[RunDir]:
    """The folder of a new run, or with ``config.resume`` of an old one, for this process alone.

    If the run is kept at a URI, the folder is a new one in runs/. The first state that is saved
    there is uploaded at the URI before training begins, later ones meanwhile, the last one by the
    end of the ``with`` block. Until then a run that was there is not touched.

    If the block ends in an error before this process has made an update, what was made for it is
    removed, at the URI too.

    Raises:
        UsageError: it holds a run already, or none to go on with, or another process trains there.
        RunError: it cannot be read or written.
    """
    location, is_new = config.location, config.resume is None
    if not is_uri(location):
        run_dir = RunDir.create(config) if is_new else RunDir.open(Path(config.resume or ""))
        with _kept(run_dir):
            yield run_dir
        return
    remote = RemoteRun(location)
    uploader, begun = Uploader(remote), _begun if is_new else _fetched
    run_dir = begun(config, remote, uploader)
    with _kept(run_dir), _uploaded(run_dir, uploader):
        yield run_dir


@contextmanager
def _kept(run_dir: RunDir) -> Iterator[None]:
    """Lock the folder; remove it where the run fails before it has made an update."""
    try:
        with run_dir.lock():
            yield
    except Exception:
        run_dir.discard()
        raise


@contextmanager
def _uploaded(run_dir: RunDir, uploader: Uploader) -> Iterator[None]:
    """Have all that was saved in the folder uploaded at the end; nothing of a start that fails."""
    try:
        yield
    except BaseException as error:
        # An interrupted run stays, however early: the user may go on with it.
        is_failed_start = isinstance(error, Exception) and not run_dir.has_updates
        finish = uploader.withdraw if is_failed_start else uploader.end
        try:
            finish()
        except RunError as second:  # beside the error that ended the run, not in its place
            _LOG.error(str(second))
        raise
    uploader.end()


def saved_config(location: str | Path) -> TrainConfig:
    """The settings of the run that is kept there, from its newest good checkpoint.

    Raises:
        UsageError: there is no run.
        RunError: it cannot be read.
    """
    return load_newest_at(location, load_checkpoint).config


def load_newest_at(location: str | Path, load: Callable[[Path], T]) -> T:
    """What ``load`` makes of the newest good checkpoint of the run in a folder or at a URI.

    A warning names each newer one that is not good, and why.

    Raises:
        UsageError: there is no run.
        RunError: it cannot be read, or none of its checkpoints is good.
    """
    if not is_uri(location):
        folder = RunDir.open(Path(location)).path / CHECKPOINTS
        return newest_good(folder, load)[1]
    remote, tried, reasons = RemoteRun(location), list[str](), list[CheckpointError]()

    def next_newest(names: Collection[str]) -> list[str]:
        left = [name for name in names if is_checkpoint(name) and name not in tried]
        # The best one has no number, so it comes last.
        newest = sorted(left, key=lambda name: update_of(name.rpartition("/")[2]))[-1:]
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
            _LOG.warning(f"{reason}; going on from {found[0].name}")
        return loaded
    if reasons:
        raise RunError(f"no checkpoint is good; the newest: {reasons[0]}") from reasons[0]
    raise RunError(f"{location}: there is no checkpoint")


def _begun(config: TrainConfig, remote: RemoteRun, uploader: Uploader) -> RunDir:
    if remote.pointer() is not None:
        raise UsageError(
            f"run_dir: {remote.uri} holds a run already; --resume {remote.uri} goes on with it"
        )
    return RunDir.create(replace(config, run_dir=None), uploader)


def _fetched(config: TrainConfig, remote: RemoteRun, uploader: Uploader) -> RunDir:
    """A copy of the run; the run there stays as it is."""
    remote.take_over()
    with writing(f"{RUNS}:"):
        fresh = FreshFolder.in_runs(config.preset)
    try:
        remote.fetch(fresh.path, lost=_LOG.warning)
        return RunDir.open(fresh.path, fresh, uploader)
    except (RunError, UsageError):
        fresh.remove()
        raise
