"""A disk that fails: what is saved stays good, and the run stops or goes on as asked."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from disks import full_disk
from records import record_of
from small_runs import CONFIG, state_after

from distributed_pg.algo.state import TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError
from distributed_pg.storage.checkpoint import load_checkpoint, save_checkpoint
from distributed_pg.storage.checkpoint_writer import CheckpointWriter
from distributed_pg.storage.object_store import RemoteRun, TakenOverError
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.storage.uploader import Uploader

WARN = replace(CONFIG, disk_errors="warn")


def begin(
    path: Path, config: TrainConfig = CONFIG, uploader: Uploader | None = None
) -> tuple[CheckpointWriter, RunDir]:
    """A run with a checkpoint of its beginning."""
    run_dir = RunDir.create(replace(config, run_dir=path), uploader)
    saved = run_dir.save(config, state_after(0), best=False)
    return CheckpointWriter(run_dir, config, 0, saved), run_dir


def newest(run_dir: RunDir) -> int:
    """The update of the newest checkpoint, which is good."""
    return load_checkpoint(run_dir.newest_checkpoint()).state.progress.update


def test_checkpoints_are_written_beside_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer, run_dir = begin(tmp_path / "run")
    for update in (1, 2, 3):
        writer.record(record_of(update))
        writer.updated(state_after(update))
    path = writer.finish(state_after(3))
    assert path.name == "update-00000003.safetensors"
    assert newest(run_dir) == 3
    assert caplog.messages == []


def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    writer, run_dir = begin(tmp_path / "run")
    with full_disk(1000):
        writer.updated(state_after(1))
        with pytest.raises(RunError, match=r"update-00000001.*cannot be written .File too large"):
            writer.finish(state_after(1))
    assert newest(run_dir) == 0
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == [
        "update-00000000.safetensors"
    ]
    assert writer.finish(state_after(1)).exists()
    assert newest(run_dir) == 1


def test_a_full_disk_is_told_once_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer, run_dir = begin(tmp_path / "run", WARN)
    writer.record(record_of(1))
    size = (tmp_path / "run/metrics.jsonl").stat().st_size
    with full_disk(size + 10):
        for update in (2, 3, 4):
            writer.record(record_of(update))
            writer.updated(state_after(update))
            writer.wait()
    metrics, checkpoints = caplog.messages
    assert "metrics.jsonl: cannot be written" in metrics
    assert "training goes on without metrics" in metrics
    assert "training goes on without checkpoints" in checkpoints
    assert (tmp_path / "run/metrics.jsonl").stat().st_size == size  # no half a line
    assert newest(run_dir) == 0
    for update in (5, 6):
        writer.record(record_of(update))
        writer.updated(state_after(update))
        writer.wait()
    again = ["metrics can be written again", "checkpoints can be written again"]
    assert caplog.messages[2:] == again
    assert newest(run_dir) == 6


def test_a_folder_that_is_removed_stops_the_run(tmp_path: Path) -> None:
    writer, _ = begin(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunError, match=r"metrics.jsonl: cannot be written .No such file"):
        writer.record(record_of(1))
    with pytest.raises(RunError, match=r"cannot be written .No such file"):
        writer.finish(state_after(1))


def test_the_newest_good_checkpoint_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer, run_dir = begin(tmp_path / "run")
    for update in (1, 2):
        writer.finish(state_after(update))
    newest_file = tmp_path / "run/checkpoints/update-00000002.safetensors"
    newest_file.write_bytes(newest_file.read_bytes()[:-1])
    path, checkpoint = run_dir.load_newest()
    assert checkpoint.state.progress.update == 1
    assert path.name == "update-00000001.safetensors"
    (message,) = caplog.messages
    assert "update-00000002.safetensors: not a distributed_pg checkpoint, or cut short" in message
    assert message.endswith("; using update-00000001.safetensors")
    for file in (tmp_path / "run/checkpoints").iterdir():
        file.write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint is good; the newest: .*update-00000002"):
        run_dir.load_newest()


def written(writer: CheckpointWriter, state: TrainingState) -> TrainingState:
    writer.updated(state)
    writer.wait()
    return state


def best_mean(run_dir: RunDir) -> float | None:
    """Of the best checkpoint on the disk, which is good."""
    return load_checkpoint(run_dir.path / "checkpoints/best.safetensors").state.progress.mean_100


def test_the_best_checkpoint_is_written_when_that_works_again(tmp_path: Path) -> None:
    writer, run_dir = begin(tmp_path / "run", WARN)
    with full_disk(1000):
        state = written(writer, state_after(100, 5.0))
        assert state.progress.best_mean_100 is None
    for update in (101, 102):  # no better than what could not be written
        state = written(writer, state_after(update, 5.0))
        assert best_mean(run_dir) == 5.0
    saved = load_checkpoint(writer.finish(state)).state.progress
    assert saved.best_mean_100 == state.progress.best_mean_100 == 5.0


def test_what_is_lower_than_a_best_that_was_lost_is_the_best(tmp_path: Path) -> None:
    writer, run_dir = begin(tmp_path / "run", WARN)
    written(writer, state_after(100, 1.0))
    with full_disk(1000):
        written(writer, state_after(101, 5.0))
    assert best_mean(run_dir) == 1.0
    written(writer, state_after(102, 4.0))
    assert best_mean(run_dir) == 4.0
    written(writer, state_after(103, 3.0))
    assert best_mean(run_dir) == 4.0


def test_a_best_that_is_written_stays_though_its_checkpoint_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, run_dir = begin(tmp_path / "run", WARN)
    written(writer, state_after(100, 1.0))

    def only_best(path: Path, config: TrainConfig, state: TrainingState) -> None:
        if path.name.startswith("update"):
            raise OSError(28, "No space left on device")
        save_checkpoint(path, config, state)

    with monkeypatch.context() as patch:
        patch.setattr("distributed_pg.storage.run_dir.save_checkpoint", only_best)
        written(writer, state_after(101, 5.0))
    written(writer, state_after(102, 4.0))
    assert best_mean(run_dir) == 5.0
    progress = load_checkpoint(run_dir.newest_checkpoint()).state.progress
    assert (progress.update, progress.best_mean_100) == (102, 5.0)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"damaged")])
def test_a_best_that_is_lost_while_the_run_rests_is_written_anew(
    tmp_path: Path, harm: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    writer, run_dir = begin(tmp_path / "run")
    written(writer, state_after(100, 5.0))
    writer.finish(state_after(100, 5.0))
    harm(run_dir.path / "checkpoints/best.safetensors")
    again = RunDir.open(run_dir.path)
    path, checkpoint = again.load_newest()
    assert checkpoint.state.progress.best_mean_100 == 5.0
    state = state_after(101, 4.0)
    state.progress = replace(state.progress, best_mean_100=5.0)
    written(CheckpointWriter(again, CONFIG, 100, path), state)
    assert best_mean(again) == 4.0
    assert caplog.messages == []


class Taken(Uploader):
    """Of a run that another process takes over, once it is noticed there."""

    noticed_by = ""

    def check(self) -> None:
        self._notice("check")

    def upload(self, folder: Path) -> None:
        self._notice("upload")

    def _notice(self, method: str) -> None:
        if method == self.noticed_by:
            raise TakenOverError("s3://b/r is in use: another process trains there")


def test_a_run_that_is_taken_over_ends_though_disk_errors_do_not_end_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uploader = Taken(RemoteRun("memory://taken"))
    writer, _ = begin(tmp_path / "run", WARN, uploader)
    written(writer, state_after(1))
    uploader.noticed_by = "check"
    with pytest.raises(TakenOverError, match="another process trains there"):
        writer.updated(state_after(2))
    assert writer.finish(state_after(2)).exists()  # it is saved, here
    uploader.noticed_by = "upload"
    with pytest.raises(TakenOverError):
        writer.finish(state_after(3))
    assert caplog.messages == []


def test_a_folder_that_is_renamed_stops_the_run(tmp_path: Path) -> None:
    writer, _ = begin(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(RunError, match=r"metrics.jsonl: cannot be written .No such file"):
        writer.record(record_of(1))
    with pytest.raises(RunError, match=r"cannot be written .No such file"):
        writer.finish(state_after(1))
    assert not (tmp_path / "run").exists()


def test_a_failure_that_nobody_foresaw_ends_the_run_whatever_disk_errors_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, _ = begin(tmp_path / "run", WARN)

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr("distributed_pg.storage.run_dir.save_checkpoint", fail)
        written(writer, state_after(1))
    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        writer.updated(state_after(2))
