"""A disk that fails: what is saved stays good, and the run stops or goes on as asked."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from disks import full_disk
from records import record_of

from distributed_pg.checkpoint import load_checkpoint
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.run_dir import RunDir
from distributed_pg.run_writer import RunWriter
from distributed_pg.state import Progress, TrainingState

CONFIG = TrainConfig(hidden_units=20, checkpoint_every=1, batch_size=1)


def state_after(update: int) -> TrainingState:
    """A state whose weights tell the update."""
    policy = TrainingState.initial(CONFIG).policy
    policy.w2.fill(update)
    versions = dict.fromkeys(range(max(0, update - 1), update + 1), policy)
    progress = Progress(update=update, episodes=update, last_rewards=(-21.0,) * update)
    return TrainingState(versions, policy.zeros_like(), progress)


def begin(path: Path, config: TrainConfig = CONFIG) -> tuple[RunWriter, RunDir, list[str]]:
    """A run with a checkpoint of its beginning."""
    run_dir, messages = RunDir.create(replace(config, run_dir=path)), list[str]()
    saved = run_dir.save(config, state_after(0), best=False)
    return RunWriter(run_dir, config, messages.append, 0, saved), run_dir, messages


def newest(run_dir: RunDir) -> int:
    """The update of the newest checkpoint, which is good."""
    return load_checkpoint(run_dir.newest_checkpoint()).state.progress.update


def test_checkpoints_are_written_beside_the_training(tmp_path: Path) -> None:
    writer, run_dir, messages = begin(tmp_path / "run")
    for update in (1, 2, 3):
        writer.record(record_of(update))
        writer.updated(state_after(update))
    path = writer.finish(state_after(3))
    assert path.name == "update-00000003.safetensors"
    assert newest(run_dir) == 3
    assert messages == []


def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    writer, run_dir, _ = begin(tmp_path / "run")
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


def test_a_full_disk_is_told_once_and_training_goes_on(tmp_path: Path) -> None:
    writer, run_dir, messages = begin(tmp_path / "run", replace(CONFIG, disk_errors="warn"))
    writer.record(record_of(1))
    size = (tmp_path / "run/metrics.jsonl").stat().st_size
    with full_disk(size + 10):
        for update in (2, 3, 4):
            writer.record(record_of(update))
            writer.updated(state_after(update))
            writer.wait()
    assert len(messages) == 2
    assert "metrics.jsonl: cannot be written" in messages[0]
    assert "training goes on without metrics" in messages[0]
    assert "training goes on without checkpoints" in messages[1]
    assert (tmp_path / "run/metrics.jsonl").stat().st_size == size  # no half a line
    assert newest(run_dir) == 0
    for update in (5, 6):
        writer.record(record_of(update))
        writer.updated(state_after(update))
        writer.wait()
    assert messages[2:] == ["metrics can be written again", "checkpoints can be written again"]
    assert newest(run_dir) == 6


def test_a_folder_that_is_removed_stops_the_run(tmp_path: Path) -> None:
    writer, _, _ = begin(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunError, match=r"metrics.jsonl: cannot be written .No such file"):
        writer.record(record_of(1))
    with pytest.raises(RunError, match=r"cannot be written .No such file"):
        writer.finish(state_after(1))


def test_the_newest_good_checkpoint_is_found(tmp_path: Path) -> None:
    writer, run_dir, _ = begin(tmp_path / "run")
    for update in (1, 2):
        writer.finish(state_after(update))
    newest_file = tmp_path / "run/checkpoints/update-00000002.safetensors"
    newest_file.write_bytes(newest_file.read_bytes()[:-1])
    messages: list[str] = []
    path, checkpoint = run_dir.load_newest(messages.append)
    assert checkpoint.state.progress.update == 1
    assert path.name == "update-00000001.safetensors"
    (message,) = messages
    assert "update-00000002.safetensors: not a distributed_pg checkpoint, or cut short" in message
    assert message.endswith("; going on from update-00000001.safetensors")
    for file in (tmp_path / "run/checkpoints").iterdir():
        file.write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint is good; the newest: .*update-00000002"):
        run_dir.load_newest(messages.append)


HOLD = """
import sys
from pathlib import Path
from distributed_pg.run_dir import RunDir
with RunDir.open(Path(sys.argv[1])).lock(print):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    _, run_dir, _ = begin(tmp_path / "run")
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with (
            pytest.raises(UsageError, match=f"is in use by process {holder.pid} on "),
            run_dir.lock(print),
        ):
            pass
        holder.kill()
        holder.wait()
    with run_dir.lock(print):  # it ended with its process
        pass
