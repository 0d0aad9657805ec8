"""Files and settings made to harm: a correct load or one clear error, and nothing else."""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.errors import CheckpointError, ConfigError, one_line
from distributed_pg.storage.checkpoint import (
    FORMAT,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from distributed_pg.storage.tensor_file import Tensors, write_tensor_file
from distributed_pg.system_info import peak_memory

CONFIG = TrainConfig(hidden_units=1, crop=(35, 39, 0, 160), batch_size=2)
CASES = 10 * settings().max_examples
PROGRESS = Progress(
    update=1, episodes=2, frames=80, running_mean=-20.5, last_rewards=(-21.0, -20.0)
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "c.safetensors"
    save_checkpoint(path, CONFIG, state())
    return path.read_bytes()


def state() -> TrainingState:
    first = TrainingState.initial(CONFIG)
    second = first.policy.copy()
    second.w2[...] += 1.0
    return TrainingState({0: first.policy, 1: second}, first.cache, PROGRESS)


def load(path: Path, content: bytes) -> Checkpoint | None:
    """What the file says, or None after one clear error; anything else fails the test."""
    path.write_bytes(content)
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert len(message) < 1000
        return None


def same(checkpoint: Checkpoint) -> bool:
    loaded, saved = checkpoint.state, state()
    return checkpoint.config == CONFIG and all(
        ours.tobytes() == theirs.tobytes()
        for version, policy in saved.policies.items()
        for ours, theirs in zip(loaded.policies[version].arrays, policy.arrays, strict=True)
    )


def flip(chance: random.Random, content: bytearray) -> None:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def flip_in_header(chance: random.Random, content: bytearray) -> None:
    content[chance.randrange(min(3000, len(content)))] ^= 1 << chance.randrange(8)


def cut(chance: random.Random, content: bytearray) -> None:
    del content[chance.randrange(len(content)) :]


def cut_out(chance: random.Random, content: bytearray) -> None:
    start = chance.randrange(len(content))
    del content[start : start + chance.randint(1, 50)]


def insert(chance: random.Random, content: bytearray) -> None:
    start = chance.randrange(len(content))
    content[start:start] = chance.randbytes(chance.randint(1, 50))


def swap(chance: random.Random, content: bytearray) -> None:
    size = chance.randint(1, 100)
    a, b = (chance.randrange(len(content) - size) for _ in range(2))
    content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]


DAMAGE: list[Callable[[random.Random, bytearray], None]] = [
    flip,
    flip_in_header,
    cut,
    cut_out,
    insert,
    swap,
]


def test_random_damage_is_found(tmp_path: Path, good: bytes) -> None:
    chance, loads = random.Random(0), 0
    before = peak_memory()
    for _ in range(CASES):
        content = bytearray(good)
        for _ in range(chance.choice([1, 1, 2, 5])):
            if len(content) > 200:
                chance.choice(DAMAGE)(chance, content)
        checkpoint = load(tmp_path / "c.safetensors", bytes(content))
        if checkpoint is not None:
            assert same(checkpoint)
            loads += 1
    assert loads < CASES / 100  # a swap of equal bytes, or two that undo each other
    assert peak_memory() - before < 50 * 2**20


def crafted(header: dict[str, Any], data: bytes, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    size = len(text) if length is None else length
    return size.to_bytes(8, "little") + text + data


HUGE = 2**62
LIES: list[bytes] = [
    crafted({}, b"", length=HUGE),
    crafted({}, b"", length=2**64 - 1),
    crafted({"w": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4]}}, bytes(4)),
    crafted({"w": {"dtype": "F32", "shape": [HUGE, HUGE], "data_offsets": [0, 4]}}, bytes(4)),
    crafted({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, HUGE]}}, bytes(4)),
    crafted({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
    crafted({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
    crafted({"w": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    crafted({"__metadata__": {"format": FORMAT}}, b""),
    crafted({"__metadata__": {"format": FORMAT, "sha256": "0" * 64}}, b""),
    crafted({"__metadata__": {"format": [FORMAT]}}, b""),
    crafted({"__metadata__": None}, b""),
    (10**7).to_bytes(8, "little") + b"[" * 10**7,
]


@pytest.mark.parametrize("content", LIES, ids=range(len(LIES)))
def test_a_header_that_lies(tmp_path: Path, content: bytes) -> None:
    before = peak_memory()
    assert load(tmp_path / "c.safetensors", content) is None
    assert peak_memory() - before < 200 * 2**20


def tensor_file(folder: Path, config: str, progress: str, versions: str) -> bytes:
    """A file whose checksum is right, whatever it says."""
    tensors: Tensors = {"cache.w1": state().cache.w1, "cache.w2": state().cache.w2}
    for version, policy in state().policies.items():
        tensors[f"policy.{version}.w1"], tensors[f"policy.{version}.w2"] = policy.arrays
    metadata = {"format": FORMAT, "config": config, "progress": progress}
    path = folder / "tensor_file"
    write_tensor_file(path, metadata | {"versions": versions, "cpu": "none"}, tensors)
    return path.read_bytes()


numbers = st.integers() | st.floats() | st.sampled_from([2**63, 10**400, -1, 0, 1e308])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=2 * settings().max_examples)
@given(name=st.sampled_from(sorted(CONFIG.to_json())) | st.text(), value=values)
@example(name="num_workers", value="\n")
@example(name="a\nb", value=0)
def test_any_value_of_a_setting_is_taken_or_refused_in_one_line(name: str, value: Any) -> None:
    complaint = ""
    try:
        config = TrainConfig.from_json(CONFIG.to_json() | {name: value})
    except ConfigError as error:
        complaint = str(error)
    if complaint:
        assert complaint.startswith(f"{one_line(name)}: ")
        assert "\n" not in complaint
    else:
        assert TrainConfig.from_json(config.to_json()) == config


@given(name=st.sampled_from(sorted(dataclasses.asdict(PROGRESS))), value=values)
@example(name="best_mean_100", value=[10**400] * 5)
@example(name="last_rewards", value=[0, 10**400])
@example(name="last_rewards", value=[float("nan"), float("inf")])
def test_any_progress_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: Any
) -> None:
    progress = json.dumps(dataclasses.asdict(PROGRESS) | {name: value})
    folder = tmp_path_factory.getbasetemp()
    path = folder / "progress.safetensors"
    loaded = load(path, tensor_file(folder, json.dumps(CONFIG.to_json()), progress, "{}"))
    if loaded is not None:
        assert same(loaded)
        mean = loaded.state.progress.mean_100
        assert mean is None or np.isfinite(mean)


@pytest.mark.parametrize("text", ["", "[", "null", "[]", "1", "[" * 5000 + "]" * 5000, "{}" * 2])
@pytest.mark.parametrize("where", ["config", "progress", "versions"])
def test_metadata_that_is_no_description(tmp_path: Path, where: str, text: str) -> None:
    parts = {
        "config": json.dumps(CONFIG.to_json()),
        "progress": json.dumps(dataclasses.asdict(PROGRESS)),
        "versions": "{}",
    }
    assert load(tmp_path / "good", tensor_file(tmp_path, **parts)) is not None
    assert load(tmp_path / "bad", tensor_file(tmp_path, **(parts | {where: text}))) is None
