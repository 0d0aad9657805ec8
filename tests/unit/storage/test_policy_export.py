"""Policies in the files of other programs, as numpy and an ONNX runtime read them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from dense_reference import forward
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distributed_pg import __version__
from distributed_pg.algo.policy import Policy, action_probabilities
from distributed_pg.algo.state import Progress, TrainingState, policy_shape
from distributed_pg.config import Action, TrainConfig
from distributed_pg.envs.pong import PongEnv
from distributed_pg.errors import RunError, UsageError
from distributed_pg.storage.checkpoint import load_checkpoint, save_checkpoint, weights_checksum
from distributed_pg.storage.onnx_model import onnx_model
from distributed_pg.storage.policy_export import export_policy, mean_policy
from distributed_pg.storage.policy_file import TrainedPolicy, load_policy

CONFIG = TrainConfig(hidden_units=3, crop=(35, 39, 0, 160), actions=("UP", "DOWN", "NOOP"))
POLICY = Policy.init(1, *policy_shape(CONFIG))
ACTIONS: tuple[Action, ...] = ("UP", "DOWN", "NOOP", "FIRE", "UPFIRE", "DOWNFIRE")
SUFFIXES = (".safetensors", ".npz", ".onnx")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    state = TrainingState({0: POLICY}, POLICY.zeros_like(), Progress())
    save_checkpoint(tmp_path / "c.safetensors", CONFIG, state)
    return tmp_path / "c.safetensors"


def session(model: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def probabilities(trained: TrainedPolicy, frames: NDArray[np.int8]) -> NDArray[np.float32]:
    """What the model of a policy makes of a batch of frames."""
    running = session(onnx_model(trained).SerializeToString())
    result: NDArray[np.float32] = running.run(["probabilities"], {"observations": frames})[0]
    return result


def assert_equal_to_forward(trained: TrainedPolicy, frames: NDArray[np.int8]) -> None:
    """The model's probabilities are the policy's, and those of a dense reference in float64."""
    result = probabilities(trained, frames)
    policy = trained.policy
    assert result.dtype == np.float32
    assert result.shape == (len(frames), policy.w2.shape[1])
    planes = 2 if policy.sees_current_frame else 1
    w1 = np.concatenate(np.hsplit(policy.w1.astype(np.float64), planes))
    for frame, row in zip(frames, result, strict=True):
        difference, *current = frame.reshape(planes, -1)
        pixels, frame_sum = difference.nonzero()[0], None
        if current:
            before = (current[0] - difference).astype(np.float32)
            frame_sum = before @ policy.w1[:, policy.w1.shape[1] // 2 :]
        hidden, outputs = policy.forward(pixels, difference[pixels].astype(np.float32), frame_sum)
        # The rounding errors of a logit grow with what it is the sum of.
        tolerance = 1e-5 + 1e-6 * float((hidden @ np.abs(policy.w2)).max())
        np.testing.assert_allclose(row, action_probabilities(outputs), rtol=0, atol=tolerance)
        x = np.concatenate([difference, *current]).astype(np.float64)
        reference = forward(w1, policy.w2.astype(np.float64), x)[1]
        np.testing.assert_allclose(row, reference, rtol=0, atol=tolerance)


def test_the_onnx_model_of_the_trained_policy_on_frames_of_a_game() -> None:
    trained = load_policy("pretrained")
    env = PongEnv(**trained.config.env_settings() | {"frame_limit": 1000})
    observation, _ = env.reset(seed=0)
    observations, done = [], False
    while not done:
        observations.append(observation)
        action, _ = trained.predict(observation, deterministic=True)
        observation, _, terminated, truncated, _ = env.step(int(action))
        done = terminated or truncated
    frames = np.stack(observations)
    assert np.abs(frames).sum(axis=(-2, -1)).max() > 20
    assert_equal_to_forward(trained, frames)
    assert np.ptp(probabilities(trained, frames)[:, 0]) > 0.5


@example(2120, 3, 21, (35, 195, 0, 160), 4, 0.6515826142031934, True, 8.0)  # logits of 100
@given(
    seed=st.integers(0, 2**32 - 1),
    actions=st.integers(2, len(ACTIONS)),
    hidden_units=st.integers(1, 40),
    crop=st.sampled_from([(35, 195, 0, 160), (35, 39, 0, 160), (0, 1, 0, 1), (7, 28, 3, 12)]),
    batch=st.integers(0, 4),
    changed=st.floats(0.0, 1.0),
    current_frame=st.booleans(),
    scale=st.floats(0.0, 20.0),
)
def test_the_onnx_model_of_any_policy_on_any_frames(
    seed: int,
    actions: int,
    hidden_units: int,
    crop: tuple[int, int, int, int],
    batch: int,
    changed: float,
    current_frame: bool,
    scale: float,
) -> None:
    config = TrainConfig(
        actions=ACTIONS[:actions],
        hidden_units=hidden_units,
        crop=crop,
        current_frame=current_frame,
    )
    random = np.random.default_rng(seed)
    policy = Policy.init(seed, *policy_shape(config))
    # The value's column must not reach the last action, which has no logit.
    policy.w2[...] = random.normal(0.0, scale / hidden_units**0.5, policy.w2.shape)
    shape = (batch, (crop[1] - crop[0] + 1) // 2, (crop[3] - crop[2] + 1) // 2)
    signs = random.choice(np.array([-1, 1], np.int8), shape)
    frames = np.where(random.random(shape) < changed, signs, np.int8(0))
    if current_frame:
        policy.w1[...] = random.normal(0.0, 0.1, policy.w1.shape)
        shown = frames == 1  # what has appeared is there, what has vanished is not
        shown |= (frames == 0) & (random.random(shape) < 0.1)
        frames = np.stack([frames, shown.astype(np.int8)], axis=1)
    assert_equal_to_forward(TrainedPolicy(config, policy, Progress()), frames)


def test_what_the_onnx_model_says_of_itself(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.onnx"
    export_policy([str(checkpoint)], out)
    onnx.checker.check_model(onnx.load(out), full_check=True)
    running = session(str(out))
    (frames,), (result,) = running.get_inputs(), running.get_outputs()
    assert (frames.name, frames.type, frames.shape) == (
        "observations",
        "tensor(int8)",
        ["N", 2, 80],
    )
    assert (result.name, result.type, result.shape) == ("probabilities", "tensor(float)", ["N", 3])
    model = running.get_modelmeta()
    assert model.producer_name == "distributed_pg"
    assert onnx.load(out).producer_version == __version__
    assert model.custom_metadata_map == {
        "actions": '["UP", "DOWN", "NOOP"]',
        "crop": "[35, 39, 0, 160]",
        "current_frame": "false",
        "frame_skip": "2",
        "weights_checksum": weights_checksum(POLICY),
    }


def test_an_npz_has_the_very_weights_and_needs_no_pickle(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.npz"
    export_policy([str(checkpoint)], out)
    with np.load(out, allow_pickle=False) as arrays:
        assert set(arrays) == {"w1", "w2", "metadata"}
        for name, weights in zip(("w1", "w2"), POLICY.arrays, strict=True):
            assert arrays[name].dtype == np.float32
            assert arrays[name].tobytes() == weights.tobytes()
        assert arrays["metadata"].shape == ()
        metadata: dict[str, Any] = json.loads(str(arrays["metadata"]))
    assert metadata["config"] == CONFIG.to_json()
    assert metadata["progress"]["update"] == 0
    assert metadata["weights_checksum"] == weights_checksum(POLICY)
    assert metadata["versions"]["numpy"] == np.__version__


def test_a_safetensors_file_is_a_policy_of_ours(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    export_policy([str(checkpoint)], out)
    expected = POLICY.w1.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(load_policy(out).policy.w1, expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_replaced_as_a_whole_or_not_at_all(
    checkpoint: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"p{suffix.upper()}"
    out.write_bytes(b"before")
    with pytest.raises(UsageError, match="No such file"):
        export_policy([str(checkpoint), str(tmp_path / "none")], out)
    assert out.read_bytes() == b"before"
    export_policy([str(checkpoint)], out)
    assert len(out.read_bytes()) > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.name, out.name]

    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    with pytest.raises(RunError, match=f"^out: {folder} cannot be written "):
        export_policy([str(checkpoint)], folder)
    assert list(folder.iterdir()) == []


def test_a_checkpoint_is_never_written_over(checkpoint: Path, tmp_path: Path) -> None:
    for source in (str(checkpoint), "pretrained"):
        with pytest.raises(UsageError, match=f"^out: {checkpoint} is a checkpoint"):
            export_policy([source], checkpoint)
    assert load_checkpoint(checkpoint).config == CONFIG


def test_the_mean_of_several() -> None:
    other = Policy(3 * POLICY.w1, -POLICY.w2)
    first = TrainedPolicy(CONFIG, POLICY, Progress(update=1))
    second = TrainedPolicy(replace(CONFIG, keep=9), other, Progress(update=5))
    mean = mean_policy([second, first])
    assert mean.progress.update == 5
    np.testing.assert_allclose(mean.policy.w1, 2 * POLICY.w1, rtol=1e-6)
    assert not mean.policy.w2.any()
    assert mean_policy([first]).policy.w1.tobytes() == POLICY.w1.tobytes()
    with pytest.raises(UsageError, match="different runs"):
        mean_policy([first, TrainedPolicy(replace(CONFIG, seed=1), other, Progress())])
