"""A checkpoint gives back every bit, or says in one line why it cannot."""

import dataclasses
import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.errors import CheckpointError
from distributed_pg.storage.checkpoint import (
    load_checkpoint,
    save_checkpoint,
    weights_checksum,
)
from distributed_pg.storage.tensor_file import write_atomically
from distributed_pg.system_info import library_versions

CONFIG = TrainConfig(seed=3, hidden_units=7, batch_size=2, crop=(35, 75, 0, 160))


def small_state(updates: int = 3) -> TrainingState:
    state = TrainingState.initial(CONFIG)
    random = np.random.default_rng(0)
    for _ in range(updates):
        rewards = random.integers(-21, 0, 2).astype(float).tolist()
        state.progress = state.progress.after_update(rewards, frames=72, wall_seconds=1.25)
        policy = state.policies[state.progress.update - 1].copy()
        policy.w1[...] += random.standard_normal(policy.w1.shape).astype(np.float32)
        state.policies[state.progress.update] = policy
    for version in list(state.policies)[:-2]:
        del state.policies[version]
    state.cache.w1[...] = random.random(state.cache.w1.shape)
    return state


def same(one: Policy, other: Policy) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one.arrays, other.arrays, strict=True))


@pytest.mark.parametrize("updates", [0, 1, 3])
def test_gives_back_every_bit(tmp_path: Path, updates: int) -> None:
    state, path = small_state(updates), tmp_path / "c.safetensors"
    save_checkpoint(path, CONFIG, state)
    loaded = load_checkpoint(path)
    assert loaded.config == CONFIG
    assert loaded.state.progress == state.progress
    assert list(loaded.state.policies) == list(state.policies)
    for version, policy in state.policies.items():
        assert same(loaded.state.policies[version], policy)
    assert same(loaded.state.cache, state.cache)
    assert loaded.versions == library_versions()
    assert loaded.state.cache.w1.flags.writeable


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.safetensors", CONFIG, small_state())
    save_checkpoint(tmp_path / "c.safetensors", CONFIG, small_state())
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c"
    write_atomically(path, b"old")

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def fail_to_sync(monkeypatch: pytest.MonkeyPatch, number: int, *, folders: bool) -> None:
    """Have fsync fail for folders, or for files."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_flush_a_folder_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fail_to_sync(monkeypatch, number, folders=True)
    write_atomically(tmp_path / "c", b"content")
    assert (tmp_path / "c").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("number", "folders"),
    [(errno.EIO, True), (errno.ENOSPC, True), (errno.EINVAL, False), (errno.ENOTSUP, False)],
)
def test_any_other_failure_to_flush_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, folders: bool
) -> None:
    fail_to_sync(monkeypatch, number, folders=folders)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_atomically(tmp_path / "c", b"content")


def test_a_system_that_cannot_open_a_folder_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_DIRECTORY")  # Windows has none
    fail_to_sync(monkeypatch, errno.EIO, folders=True)
    write_atomically(tmp_path / "c", b"content")
    assert (tmp_path / "c").read_bytes() == b"content"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def truncate_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def replace_by_text(path: Path) -> None:
    path.write_text("not a checkpoint at all, but a text file of some length\n" * 10)


def replace_by_other_safetensors(path: Path) -> None:
    save_file({"weights": np.zeros(3, np.float32)}, path)


def remove(path: Path) -> None:
    path.unlink()


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (truncate, "not a distributed_pg checkpoint, or cut short"),
    (truncate_header, "not a distributed_pg checkpoint, or cut short"),
    (empty, "not a distributed_pg checkpoint, or cut short"),
    (flip_a_weight, "damaged, its checksum does not match"),
    (replace_by_text, "not a distributed_pg checkpoint, or cut short"),
    (replace_by_other_safetensors, "not a distributed_pg checkpoint"),
    (remove, "cannot be read (No such file or directory)"),
    (replace_by_folder, "cannot be read (Is a directory)"),
]


@pytest.mark.parametrize(("damage", "complaint"), DAMAGE)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], complaint: str) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, CONFIG, small_state())
    damage(path)
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert complaint in message
    assert "\n" not in message


def test_an_altered_config_is_found_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, CONFIG, small_state())
    content = path.read_bytes()
    assert content.count(b'\\"seed\\": 3') == 1
    path.write_bytes(content.replace(b'\\"seed\\": 3', b'\\"seed\\": 4'))
    with pytest.raises(CheckpointError, match="its checksum does not match"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (dataclasses.replace(CONFIG, hidden_units=8), r"w1 is float32 \(1600, 7\), not"),
        (dataclasses.replace(CONFIG, actions=("UP", "DOWN", "NOOP")), "w2 is float32"),
        (dataclasses.replace(CONFIG, policy_lag=2), r"policy\.1\.w1"),
        (dataclasses.replace(CONFIG, policy_lag=0), r"unexpected tensor policy\.2\.w1"),
        (dataclasses.replace(CONFIG, batch_size=3), "episodes and updates do not fit"),
    ],
)
def test_tensors_of_another_shape_than_the_config(
    tmp_path: Path, config: TrainConfig, complaint: str
) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, config, small_state())
    with pytest.raises(CheckpointError, match=f"contents do not fit together .*{complaint}"):
        load_checkpoint(path)


def test_a_checkpoint_is_an_ordinary_safetensors_file(tmp_path: Path) -> None:
    path, state = tmp_path / "c.safetensors", small_state()
    save_checkpoint(path, CONFIG, state)
    tensors = load_file(path)
    assert np.array_equal(tensors["policy.3.w1"], state.policy.w1)
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    metadata = json.loads(header)["__metadata__"]
    assert json.loads(metadata["config"])["seed"] == 3
    assert json.loads(metadata["versions"])["numpy"] == np.__version__
    assert metadata["cpu"]


def test_weights_checksum_sees_one_bit() -> None:
    policy = Policy.init(seed=0, inputs=20, hidden_units=4, actions=2)
    other = policy.copy()
    assert weights_checksum(policy) == weights_checksum(other)
    other.w2.view(np.uint32)[0, 0] ^= 1
    assert weights_checksum(policy) != weights_checksum(other)


def test_progress_by_hand() -> None:
    progress = Progress().after_update([-20.0, -10.0], frames=80, wall_seconds=2.0)
    assert progress.running_mean == pytest.approx(0.99 * -20 + 0.01 * -10)
    assert progress.mean_100 == -15.0
    assert (progress.update, progress.episodes, progress.frames) == (1, 2, 80)
    assert progress.best_reward == -10.0
    for _ in range(60):
        progress = progress.after_update([1.0, 3.0], frames=80, wall_seconds=3.0)
    assert len(progress.last_rewards) == 100
    assert progress.mean_100 == 2.0
    assert progress.best_reward == 3.0
