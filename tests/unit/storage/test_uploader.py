"""Uploads beside the training, to stores that fail for a while, for good, or are silent."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import until
from small_runs import CONFIG, state_after
from stores import CHECKPOINT, FailingStore, fetched, files_of_a_run

from distributed_pg.errors import RunError
from distributed_pg.storage.object_store import RemoteRun
from distributed_pg.storage.open_run import open_run
from distributed_pg.storage.uploader import NoAnswerError, Uploader

SECONDS = 30.0
"""After so long what was waited for counts as missing."""


@pytest.fixture(autouse=True)
def _retries_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed_pg.storage.uploader.FIRST_WAIT", 0.02)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the files of a run."""
    return files_of_a_run(tmp_path / "a-run")


def test_a_store_that_goes_and_comes_back_is_told_once_and_loses_nothing(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote = RemoteRun("memory://comes-back")
    whole, broken = remote._fs, FailingStore(remote._fs, 0)
    uploader = Uploader(remote)
    uploader.upload(run)
    remote._fs = broken
    (run / CHECKPOINT).write_bytes(b"newer")
    uploader.upload(run)
    until(lambda: len(caplog.messages) == 2, seconds=SECONDS)
    uploader.upload(run)
    remote._fs = whole
    uploader.end()
    assert fetched(remote.uri, tmp_path / "fetched")[CHECKPOINT] == b"newer"
    assert caplog.messages == [
        f"The run is kept at memory://comes-back, with a local copy in {run}",
        "memory://comes-back: cannot be written (gone); training goes on, the upload is retried",
        "memory://comes-back: the run is uploaded again",
    ]


def test_a_store_that_stays_away_is_an_error_at_the_end(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distributed_pg.storage.uploader.END_SECONDS", 0.1)
    remote = RemoteRun("memory://stays-away")
    uploader = Uploader(remote)
    uploader.upload(run)
    remote._fs = FailingStore(remote._fs, 0)
    uploader.upload(run)
    with pytest.raises(RunError, match=r"cannot be written \(gone\); the last checkpoint is in"):
        uploader.end()


def test_the_end_says_what_it_was_at_once_if_nothing_is_tried_any_more(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distributed_pg.storage.uploader.END_SECONDS", 0.1)

    class Broken(RemoteRun):
        def upload(self, folder: Path) -> None:
            if (folder / "config.json").read_text() == "second":
                raise AttributeError("'NoneType' object has no attribute 'send'")

    uploader = Uploader(Broken("memory://broken"))
    uploader.upload(run)
    (run / "config.json").write_text("second")
    uploader.upload(run)
    with pytest.raises(RunError, match=r"AttributeError: 'NoneType' .*; the last checkpoint is in"):
        uploader.end()


def test_what_is_being_uploaded_when_the_run_is_withdrawn_is_taken_away_too(run: Path) -> None:
    begun, awake = threading.Event(), threading.Event()
    calls = []

    class Slow(RemoteRun):
        def upload(self, folder: Path) -> None:
            calls.append(folder)
            if len(calls) == 2:
                begun.set()
                assert awake.wait(SECONDS)
            super().upload(folder)

    remote = Slow("memory://withdrawn")
    uploader = Uploader(remote)
    uploader.upload(run)
    uploader.upload(run)
    assert begun.wait(SECONDS)
    withdrawing = threading.Thread(target=uploader.withdraw)
    withdrawing.start()
    awake.set()
    withdrawing.join(SECONDS)
    assert RemoteRun(remote.uri).pointer() is None
    assert len(calls) == 2


def begin_at(uri: str) -> None:
    """Begin a run there, and leave it at once."""
    with open_run(replace(CONFIG, run_dir=uri)) as run_dir:
        run_dir.save(CONFIG, state_after(0), best=False)


def test_a_store_that_is_silent_at_first_gets_no_run_when_it_wakes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("distributed_pg.storage.uploader.BEGIN_SECONDS", 0.1)
    monkeypatch.setattr("distributed_pg.storage.uploader.FIRST_WAIT", 0.1)
    monkeypatch.chdir(tmp_path)
    awake, tried = threading.Event(), threading.Event()
    put = RemoteRun._put

    def put_when_awake(*arguments: Any) -> Any:
        awake.wait()
        return put(*arguments)

    upload = RemoteRun.upload

    def uploaded(remote: RemoteRun, folder: Path) -> None:
        try:
            upload(remote, folder)
        finally:
            tried.set()

    monkeypatch.setattr(RemoteRun, "_put", put_when_awake)
    monkeypatch.setattr(RemoteRun, "upload", uploaded)
    with pytest.raises(NoAnswerError, match="no answer within 0 s"):
        begin_at("memory://silent")
    assert list(tmp_path.iterdir()) == []
    awake.set()
    assert tried.wait(SECONDS)
    assert RemoteRun("memory://silent").pointer() is None
    begin_at("memory://silent")  # the same command again


def test_a_store_that_denies_at_once_gets_no_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def deny(*_: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(RemoteRun, "_put", deny)
    with pytest.raises(RunError, match=r"^memory://denied: cannot be written \(Access Denied\)$"):
        begin_at("memory://denied")
    assert list(tmp_path.iterdir()) == []
