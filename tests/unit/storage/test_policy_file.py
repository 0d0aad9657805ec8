"""Policies without what training needs: files of their own, and the one in the package."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import Progress, TrainingState, policy_shape
from distributed_pg.config import PRETRAINED, TrainConfig
from distributed_pg.envs.pong import PongEnv
from distributed_pg.episode import evaluate_episode
from distributed_pg.errors import CheckpointError, RunError, UsageError
from distributed_pg.storage.checkpoint import run_metadata, save_checkpoint
from distributed_pg.storage.policy_file import (
    FORMAT,
    TrainedPolicy,
    load_policy,
    save_policy,
)
from distributed_pg.storage.tensor_file import Tensors, write_tensor_file

CONFIG = TrainConfig(hidden_units=3, crop=(35, 39, 0, 160), actions=("UP", "DOWN", "NOOP"))
POLICY = Policy.init(1, *policy_shape(CONFIG))


def test_a_policy_file_holds_the_weights_to_float16(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_policy(path, TrainedPolicy(CONFIG, POLICY, Progress(frames=7)))
    loaded = load_policy(path)
    assert loaded.config == CONFIG
    assert loaded.progress == Progress(frames=7)
    for ours, theirs in zip(loaded.policy.arrays, POLICY.arrays, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs.astype(np.float16).astype(np.float32))


def test_a_checkpoint_is_a_policy_too(tmp_path: Path) -> None:
    state = TrainingState({0: POLICY}, POLICY.zeros_like(), Progress())
    save_checkpoint(tmp_path / "c", CONFIG, state)
    assert load_policy(tmp_path / "c").policy.w1.tobytes() == POLICY.w1.tobytes()


@pytest.mark.parametrize(
    ("config", "w1", "complaint"),
    [
        (replace(CONFIG, hidden_units=4), POLICY.w1, "its contents do not fit together"),
        (CONFIG, POLICY.w1[:-1], "its contents do not fit together"),
        (CONFIG, None, "its contents do not fit together .*w1"),
    ],
)
def test_weights_that_do_not_fit(
    tmp_path: Path, config: TrainConfig, w1: np.ndarray | None, complaint: str
) -> None:
    tensors: Tensors = {"w2": POLICY.w2} | ({} if w1 is None else {"w1": np.ascontiguousarray(w1)})
    write_tensor_file(
        tmp_path / "p", {"format": FORMAT, **run_metadata(config, Progress())}, tensors
    )
    with pytest.raises(CheckpointError, match=complaint):
        load_policy(tmp_path / "p")


def test_a_damaged_policy_file(tmp_path: Path) -> None:
    path = tmp_path / "p"
    save_policy(path, TrainedPolicy(CONFIG, POLICY, Progress()))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="damaged, its checksum does not match"):
        load_policy(path)


@pytest.mark.parametrize("suffix", [".npz", ".onnx"])
def test_an_export_for_other_programs_is_named_as_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match=rf"p\{suffix}: exported for other programs; give a"):
        load_policy(path)


def test_a_path_is_not_the_policy_in_the_package() -> None:
    with pytest.raises(UsageError, match=r"^pretrained: "):
        load_policy(Path(PRETRAINED))


def test_the_policy_in_the_package_wins() -> None:
    trained = load_policy(PRETRAINED)
    env = PongEnv(**trained.config.env_settings())
    assert evaluate_episode(env, trained.policy, 0, 0, greedy=False).reward > 0
