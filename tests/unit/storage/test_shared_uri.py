"""Runs at a URI that others resume, whose store loses things, or whose process is interrupted."""

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from command import until
from records import record_of
from small_runs import CONFIG, make_update, state_after

from distributed_pg.analysis.learning_curves import local_run
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.storage.checkpoint import load_checkpoint
from distributed_pg.storage.checkpoint_writer import CheckpointWriter
from distributed_pg.storage.object_store import POINTER, RemoteRun, TakenOverError
from distributed_pg.storage.open_run import load_newest_at, open_run
from distributed_pg.storage.policy_file import load_policy
from distributed_pg.storage.run_dir import RunDir

SECONDS = 30.0
"""After so long what was waited for counts as missing."""


def run_at(uri: str, act: Callable[[RunDir], Any], config: TrainConfig = CONFIG) -> None:
    """Begin a run there and have ``act`` be its training."""
    with open_run(replace(config, run_dir=uri)) as run:
        act(run)


@pytest.fixture
def uri(uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where nothing is yet, and failed uploads are soon retried."""
    monkeypatch.setattr("distributed_pg.storage.uploader.FIRST_WAIT", 0.02)
    return uri


def update_at(uri: str) -> int:
    """The update of the newest checkpoint that is uploaded; all is good that is."""
    return load_newest_at(uri, load_checkpoint).state.progress.update


def uploaded(run: RunDir, uri: str, update: int) -> None:
    make_update(run, update)
    until(lambda: update_at(uri) == update)


def keys(uri: str) -> list[str]:
    return sorted(fsspec.filesystem("memory").find(uri.removeprefix("memory:/")))


def test_a_resume_that_cannot_write_here_does_not_end_the_owner(
    uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open_run(replace(CONFIG, run_dir=uri)) as run:
        uploaded(run, uri, 1)
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        Path("runs").write_text("a file of the user's")
        with pytest.raises(RunError, match="runs: cannot be written"):
            open_run(replace(CONFIG, resume=uri)).__enter__()
        monkeypatch.chdir(tmp_path)
        uploaded(run, uri, 2)
        run.check_ours()


def test_a_resume_takes_over_and_the_owner_ends_whatever_disk_errors_do(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(CONFIG, disk_errors="warn")

    def act(run: RunDir) -> None:
        saved = run.save(config, state_after(0), best=False)
        writer = CheckpointWriter(run, config, 0, saved)
        with open_run(replace(config, resume=uri)) as second:
            second.rewind(config, 0)
            for update in range(1, 1000):
                writer.record(record_of(update))
                writer.updated(state_after(update))
                writer.wait()

    with pytest.raises(TakenOverError, match=f"^{uri} is in use: another process trains there$"):
        run_at(uri, act, config)
    (run,) = Path("runs").iterdir()  # the second one made no update
    assert [text for text in caplog.messages if text.endswith(str(run))] == [
        f"The run is kept at {uri}, with a local copy in {run}",
        f"{uri} is in use: another process trains there; the work of this process is in {run}",
    ]
    assert update_at(uri) == 0  # the second one's


def test_of_many_that_resume_at_once_one_goes_on(uri: str) -> None:
    with open_run(replace(CONFIG, run_dir=uri)) as run:
        make_update(run, 1)
    won, lost = list[int](), list[str]()
    barrier = threading.Barrier(4, timeout=SECONDS)

    def resume(number: int) -> None:
        try:
            with open_run(replace(CONFIG, resume=uri)) as mine:
                barrier.wait()
                try:
                    mine.rewind(CONFIG, 1)
                finally:
                    barrier.wait()
                make_update(mine, 2)
            won.append(number)
        except TakenOverError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=resume, args=(n,)) for n in range(barrier.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert (len(won), len(lost)) == (1, 3)
    assert all("is in use: another process trains there" in text for text in lost)
    assert update_at(uri) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RunError, ZeroDivisionError])
def test_whatever_ends_a_run_what_it_saved_last_is_uploaded(
    uri: str, error: type[BaseException]
) -> None:
    before = threading.enumerate()
    with pytest.raises(error):
        run_at(uri, lambda run: make_and_raise(run, error))
    assert [thread for thread in threading.enumerate() if thread not in before] == []
    assert update_at(uri) == 2


def make_and_raise(run: RunDir, error: type[BaseException]) -> None:
    for update in (0, 1, 2):
        make_update(run, update)
    raise error


def test_an_interrupt_that_meets_a_store_that_fails_is_still_an_interrupt(
    uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("distributed_pg.storage.uploader.END_SECONDS", 0.1)

    def fail(*_: Any) -> None:
        raise RuntimeError("Session is closed")

    def breaks(run: RunDir) -> None:
        make_update(run, 0)
        monkeypatch.setattr(RemoteRun, "upload", fail)
        make_and_raise(run, KeyboardInterrupt)

    with pytest.raises(KeyboardInterrupt):
        run_at(uri, breaks)
    (run,) = Path("runs").iterdir()
    assert "RuntimeError: Session is closed" in caplog.messages[-1]
    assert f"the last checkpoint is in {run} only" in caplog.messages[-1]


@pytest.mark.parametrize(
    "error", [RuntimeError("Session is closed"), KeyError("Contents"), MemoryError(), ImportError()]
)
def test_an_error_that_nobody_foresaw_is_told_and_tried_again(
    uri: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run(replace(CONFIG, run_dir=uri)) as run:
        uploaded(run, uri, 1)
        real, left = RemoteRun._all_keys, [2]

        def keys_later(remote: RemoteRun) -> set[str]:
            left[0] -= 1
            if left[0] >= 0:
                raise error
            return real(remote)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RemoteRun, "_all_keys", keys_later)
            uploaded(run, uri, 2)
    _, failed, again = caplog.messages
    assert failed.startswith(f"{uri}: cannot be written ({type(error).__name__}")
    assert again == f"{uri}: the run is uploaded again"


@pytest.mark.parametrize("harm", [shutil.rmtree, lambda path: path.rename(path.parent / "moved")])
def test_a_folder_that_is_removed_does_not_take_what_is_uploaded_along(
    uri: str, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], Any]
) -> None:
    monkeypatch.setattr("distributed_pg.storage.uploader.END_SECONDS", 0.1)

    def act(run: RunDir) -> None:
        uploaded(run, uri, 1)
        harm(run.path)
        run._upload()

    with pytest.raises(RunError, match=r"cannot be written \(there is no run in runs/\S+ any more"):
        run_at(uri, act)
    assert update_at(uri) == 1


def test_checkpoints_that_are_removed_stay_uploaded(uri: str, tmp_path: Path) -> None:
    remote = RemoteRun(uri)
    run = RunDir.create(replace(CONFIG, run_dir=tmp_path / "run"))
    run.save(CONFIG, state_after(1), best=False)
    remote.upload(run.path)
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(RunError, match="there is no run in"):
        remote.upload(run.path)
    assert update_at(uri) == 1


def everything(uri: str) -> list[str]:
    return keys(uri)


def the_pointer(uri: str) -> list[str]:
    return [key for key in keys(uri) if key.endswith(POINTER)]


def what_never_changes(uri: str) -> list[str]:
    """As a rule that deletes old objects does."""
    return [key for key in keys(uri) if key.endswith("config.json")]


def a_checkpoint(uri: str) -> list[str]:
    return [key for key in keys(uri) if "update-00000001" in key]


@pytest.mark.parametrize(
    "lost", [everything, the_pointer, what_never_changes, a_checkpoint], ids=lambda f: f.__name__
)
def test_what_the_store_loses_is_uploaded_again(
    uri: str, lost: Callable[[str], list[str]], tmp_path: Path
) -> None:
    with open_run(replace(CONFIG, run_dir=uri)) as run:
        uploaded(run, uri, 1)
        uploaded(run, uri, 2)
        for key in lost(uri):
            fsspec.filesystem("memory").rm_file(key)
        make_update(run, 3)
    RemoteRun(uri).fetch(tmp_path / "fetched")  # all that it names is there, and good
    assert len(list((tmp_path / "fetched/checkpoints").iterdir())) == 3
    with open_run(replace(CONFIG, resume=uri)) as again:
        assert again.load_newest()[1].state.progress.update == 3


def test_a_store_that_was_lost_while_it_failed_gets_everything(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    memory = fsspec.filesystem("memory")
    with open_run(replace(CONFIG, run_dir=uri)) as run:
        uploaded(run, uri, 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RemoteRun, "_all_keys", lambda _: 1 / 0)
            make_update(run, 2)
            until(lambda: len(caplog.messages) == 2, seconds=SECONDS)
            memory.rm(f"/{uri.removeprefix('memory://')}", recursive=True)
        make_update(run, 3)
    assert caplog.messages[-1] == f"{uri}: the run is uploaded again"
    assert update_at(uri) == 3


def test_a_newest_checkpoint_that_is_lost_or_damaged_there_is_left_out(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run(replace(CONFIG, run_dir=uri)) as run:
        for update in (1, 2, 3):
            make_update(run, update)
    memory = fsspec.filesystem("memory")
    second, third = (key for n in (2, 3) for key in keys(uri) if f"update-0000000{n}" in key)
    memory.rm_file(third)
    memory.pipe_file(second, b"damaged")
    third_name, second_name = (f"checkpoints/update-0000000{n}.safetensors" for n in (3, 2))
    gone = f"{uri}: {third_name} cannot be read (it is gone)"
    damaged = f"{uri}: {second_name} is damaged, its checksum does not match"
    on = "; using update-00000001.safetensors"
    caplog.clear()
    assert load_policy(uri).progress.update == 1
    assert caplog.messages == [gone + on, damaged + on]
    with local_run(uri, lost=lambda _: None) as copy:
        assert RunDir.open(copy).load_newest()[0].name.endswith("1.safetensors")
    caplog.clear()
    with open_run(replace(CONFIG, resume=uri)) as again:
        assert again.load_newest()[1].state.progress.update == 1
    assert caplog.messages == [damaged, gone]


def test_a_run_of_which_no_checkpoint_is_good_is_not_gone_on_with(uri: str) -> None:
    memory = fsspec.filesystem("memory")
    with open_run(replace(CONFIG, run_dir=uri)) as run:
        make_update(run, 1)
    (checkpoint,) = a_checkpoint(uri)
    memory.pipe_file(checkpoint, b"damaged")
    with pytest.raises(RunError, match=r"^no checkpoint is good; the newest: memory://.*00001"):
        load_policy(uri)
    pointer = json.loads(memory.cat_file(the_pointer(uri)[0]))
    pointer["files"] = {"config.json": pointer["files"]["config.json"]}
    memory.pipe_file(the_pointer(uri)[0], json.dumps(pointer).encode())
    with pytest.raises(RunError, match=f"^{uri}: there is no checkpoint$"):
        load_policy(uri)


def test_a_run_without_good_settings_leaves_no_folder_here(uri: str) -> None:
    with open_run(replace(CONFIG, run_dir=uri)) as run:
        make_update(run, 1)
    (settings,) = what_never_changes(uri)
    fsspec.filesystem("memory").pipe_file(settings, b"{}")
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        open_run(replace(CONFIG, resume=uri)).__enter__()
    assert list(Path("runs").iterdir()) == [run.path]


def test_a_uri_that_holds_a_run_is_not_begun_at(uri: str) -> None:
    with open_run(replace(CONFIG, run_dir=uri)) as run:
        make_update(run, 1)
    with pytest.raises(UsageError, match=f"^run_dir: {uri} holds a run already; --resume {uri}"):
        open_run(replace(CONFIG, run_dir=uri)).__enter__()
    assert list(Path("runs").iterdir()) == [run.path]


def test_an_upload_deletes_no_data_but_that_of_runs(uri: str) -> None:
    memory, root = fsspec.filesystem("memory"), uri.removeprefix("memory:/")
    memory.pipe_file(f"{root}/data/photo.png", b"mine")
    memory.pipe_file(f"{root}/data/{'0' * 20}-update-00000001.safetensors", b"of a killed start")
    run_at(uri, lambda run: make_update(run, 1))
    names = {path.rpartition("/")[2].partition("-")[2] for path in keys(uri)}
    assert names == {"", "config.json", "metrics.jsonl", "update-00000001.safetensors"}
    assert f"{root}/data/photo.png" in keys(uri)
    assert not any("0" * 20 in path for path in keys(uri))
