"""Where a run is kept: in a folder, or in a folder of this machine that is published at a URI."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.publisher import NoAnswerError, Publisher
from distributed_pg.remote_run import RemoteRun, is_uri
from distributed_pg.run_dir import RunDir, new_folder, parse_config


@contextmanager
def open_run(config: TrainConfig, message: Callable[[str], None]) -> Iterator[RunDir]:
    """The folder of a new run, or with ``config.resume`` of an old one, for this process alone.

    If the run is kept at a URI, the folder is a new one in runs/, and all that is saved there is
    published at the URI, by the end of the ``with`` block at the latest.

    Raises:
        UsageError: it holds a run already, or none to go on with, or another process trains there.
        RunError: it cannot be read or written.
    """
    location = config.location
    if not is_uri(location):
        run_dir = (
            RunDir.create(config) if config.resume is None else RunDir.open(Path(config.resume))
        )
        with run_dir.lock():
            yield run_dir
        return
    remote = RemoteRun(location)
    run_dir = _begun(config, remote) if config.resume is None else _fetched(config, remote)
    with run_dir.lock():
        publisher = Publisher(remote, run_dir.path, message)
        try:
            publisher.begin()
        except RunError as error:
            if not isinstance(error, NoAnswerError):  # else it is still being read
                shutil.rmtree(run_dir.path)  # it has nothing yet that is not at the URI
            raise
        message(f"The run is kept at {location}, and meanwhile in {run_dir.path}")
        run_dir.when_saved = publisher.changed
        try:
            yield run_dir
        except RunError:
            publisher.end()
            raise
        publisher.end()


def saved_config(location: str | Path) -> TrainConfig:
    """The settings of the run that is kept there.

    Raises:
        UsageError: there is no run.
        RunError: it cannot be read.
    """
    if not is_uri(location):
        return RunDir.open(Path(location)).load_newest(lambda _: None)[1].config
    return parse_config(RemoteRun(location).read("config.json"), f"{location}/config.json")


def _begun(config: TrainConfig, remote: RemoteRun) -> RunDir:
    if remote.pointer() is not None:
        raise UsageError(
            f"run_dir: {remote.uri} holds a run already; --resume {remote.uri} goes on with it"
        )
    return RunDir.create(replace(config, run_dir=None))


def _fetched(config: TrainConfig, remote: RemoteRun) -> RunDir:
    remote.take_over()
    folder = new_folder(config.preset)
    remote.fetch(folder)
    return RunDir.open(folder)
