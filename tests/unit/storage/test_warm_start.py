"""What a run begins with when it begins with the weights of another."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import CONFIG as SMALL
from small_runs import make_update, state_after

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import Progress, TrainingState, policy_shape
from distributed_pg.config import PRETRAINED, TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.storage.checkpoint import save_checkpoint, weights_checksum
from distributed_pg.storage.open_run import open_run
from distributed_pg.storage.policy_file import TrainedPolicy, load_policy, save_policy
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.storage.warm_start import begin

WEIGHTS = Policy.init(99, *policy_shape(SMALL))
CACHE = Policy.init(98, *policy_shape(SMALL))
STATE = TrainingState(
    {4: WEIGHTS, 5: WEIGHTS}, CACHE, Progress(5, 5, 900, 9.0, -1.0, last_rewards=(-1.0,) * 5)
)
NEW = replace(SMALL, seed=9, learning_rate=1e-4, batch_size=3, policy_lag=0)


def same(policy: Policy, expected: Policy) -> bool:
    return all(map(np.array_equal, policy.arrays, expected.arrays))


def checkpoint(folder: Path) -> Path:
    save_checkpoint(folder / "c.safetensors", SMALL, STATE)
    return folder / "c.safetensors"


def run_folder(folder: Path) -> Path:
    run = RunDir.create(replace(SMALL, run_dir=folder / "run"))
    make_update(run, 1)
    run.save(SMALL, STATE, best=False)
    return run.path


def run_at_uri(folder: Path) -> str:
    with open_run(replace(SMALL, run_dir=f"memory://{folder.name}/run")) as run:
        run.save(SMALL, STATE, best=False)
    return f"memory://{folder.name}/run"


@pytest.mark.parametrize("make", [checkpoint, run_folder, run_at_uri])
@pytest.mark.parametrize("optimizer", [False, True])
def test_only_the_weights_are_taken_and_the_optimizer_if_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], str | Path],
    optimizer: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    config = replace(NEW, init_from=make(tmp_path), init_optimizer=optimizer)
    begun, state = begin(config)
    assert begun.init_checksum == weights_checksum(WEIGHTS)
    assert begun.init_optimizer_checksum == (weights_checksum(CACHE) if optimizer else None)
    assert begun.differences(config).keys() <= {"init_checksum", "init_optimizer_checksum"}
    assert state.policies.keys() == {0}
    assert same(state.policy, WEIGHTS)
    assert same(state.cache, CACHE if optimizer else WEIGHTS.zeros_like())
    assert state.progress == Progress()
    saved = TrainConfig.from_json(json.loads(json.dumps(begun.to_json())))
    assert saved == begun
    assert begin(saved)[0] == begun  # the config repeats the run


def test_an_exported_policy_and_the_one_in_the_package_will_do(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_policy(path, TrainedPolicy(SMALL, WEIGHTS, STATE.progress))
    rounded = Policy(*(a.astype(np.float16).astype(np.float32) for a in WEIGHTS.arrays))
    assert same(begin(replace(NEW, init_from=path))[1].policy, rounded)
    trained = load_policy(PRETRAINED)
    assert same(begin(TrainConfig(init_from=PRETRAINED, seed=9))[1].policy, trained.policy)


def test_a_policy_that_does_not_see_the_current_frame_learns_to(tmp_path: Path) -> None:
    weights, path = Policy.init(5, *policy_shape(SMALL)), tmp_path / "p.safetensors"
    save_policy(path, TrainedPolicy(SMALL, weights, Progress()), np.float32)
    config = replace(NEW, init_from=path, current_frame=True)
    _, state = begin(config)
    units = config.hidden_units
    assert np.array_equal(state.policy.w1[:, :units], weights.w1)
    assert not state.policy.w1[:, units:].any()
    assert state.cache.w1.shape == state.policy.w1.shape
    pixels, signs = np.array([0, 3, 5]), np.array([1, -1, 1], np.float32)
    seen = state.policy.forward(pixels, signs, np.zeros(units, np.float32))
    assert all(map(np.array_equal, seen, weights.forward(pixels, signs)))

    there = checkpoint(tmp_path)
    with pytest.raises(UsageError, match=r"^init_optimizer: .* does not see the current frame"):
        begin(replace(config, init_from=there, init_optimizer=True))
    save_policy(path, TrainedPolicy(config, state.policy, Progress()), np.float32)
    with pytest.raises(UsageError, match=r"does not fit: current_frame is True there and False"):
        begin(replace(NEW, init_from=path))


def test_without_a_source_a_run_begins_as_ever() -> None:
    config, state = begin(SMALL)
    assert config == SMALL
    assert same(state.policy, Policy.init(0, *policy_shape(SMALL)))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden_units": 5}, "hidden_units is 4 there and 5 here"),
        (
            {"actions": ("DOWN", "UP"), "crop": (36, 40, 0, 160)},
            "actions is UP DOWN there and DOWN UP here; crop is 35 39 0 160 there and 36 40 0 160 "
            "here",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_both_values(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    source = checkpoint(tmp_path)
    with pytest.raises(UsageError) as raised:
        begin(replace(NEW, init_from=source, **changes))
    assert str(raised.value) == f"init_from: {source} does not fit: {complaint}"


def test_a_source_that_has_changed_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path)
    config, _ = begin(replace(NEW, init_from=source, init_optimizer=True))
    other = TrainingState(dict.fromkeys((4, 5), CACHE), CACHE, STATE.progress)
    save_checkpoint(source, SMALL, other)
    now, wanted = weights_checksum(CACHE), weights_checksum(WEIGHTS)
    with pytest.raises(UsageError) as raised:
        begin(config)
    text = f"init_checksum: {wanted} is wanted, but {source} has {now} now"
    assert str(raised.value) == text
    save_checkpoint(source, SMALL, TrainingState(STATE.policies, WEIGHTS, STATE.progress))
    with pytest.raises(UsageError, match=f"^init_optimizer_checksum: {now} is wanted, but "):
        begin(config)


def test_an_optimizer_state_that_is_not_there_cannot_be_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^init_optimizer: pretrained is a policy without"):
        begin(TrainConfig(init_from=PRETRAINED, init_optimizer=True))
    run = RunDir.create(replace(SMALL, run_dir=tmp_path / "run"))
    run.save(SMALL, state_after(0), best=False)
    with pytest.raises(UsageError, match=r"^init_optimizer: .*run has made no update, so there is"):
        begin(replace(NEW, init_from=run.path, init_optimizer=True))


def test_a_source_that_is_missing_or_damaged_is_named_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^init_from: .*none: No such file or directory; give a"):
        begin(replace(NEW, init_from=tmp_path / "none"))
    with pytest.raises(UsageError, match=r"^init_from: .* holds no run \(config.json: No such"):
        begin(replace(NEW, init_from=tmp_path))
    source = checkpoint(tmp_path)
    source.write_bytes(source.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"^init_from: .*c.safetensors: "):
        begin(replace(NEW, init_from=source))
