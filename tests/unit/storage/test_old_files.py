"""A run that an earlier version has made is read and gone on with; other formats are named.

``data/format-2`` was made by version 0.1.0 at commit 17953fc, by the learner on a simulated pool:
three updates of two games of 300 steps, seen through a hole of 2 by 2 pixels.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from simulated_pool import SimulatedWorkerPool

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import Progress
from distributed_pg.config import TrainConfig
from distributed_pg.episode import EpisodeStats
from distributed_pg.errors import CheckpointError
from distributed_pg.monitoring.reporter import NullReporter
from distributed_pg.storage.checkpoint import load_checkpoint, weights_checksum
from distributed_pg.storage.metrics import read_metrics
from distributed_pg.storage.open_run import open_run, saved_config
from distributed_pg.storage.policy_file import load_policy
from distributed_pg.storage.tensor_file import write_tensor_file
from distributed_pg.training.learner import Learner
from distributed_pg.training.resuming import check_same_run, held_conditions, repairs
from distributed_pg.training.schedule import EpisodeTask

RUN = Path(__file__).parent / "data/format-2"
FILE = "checkpoints/update-00000003.safetensors"
W1 = [
    [-0.0031982390210032463, 0.1455688178539276],
    [-0.1408822238445282, -0.4490998685359955],
    [-0.23248358070850372, -0.4990538954734802],
    [0.024923618882894516, 0.6668769717216492],
]
W2 = [
    [-0.3578640818595886, -0.008732372894883156],
    [-0.4410918951034546, -0.008623356930911541],
]
CACHE_W1 = [
    [0.33494845032691956, 0.5326327085494995],
    [0.33494845032691956, 0.5326327085494995],
    [0.28097259998321533, 0.08627840131521225],
    [0.28097259998321533, 0.08627840131521225],
]
CACHE_W2 = [
    [0.10804405063390732, 3.1873412132263184],
    [0.24173100292682648, 1.8437122106552124],
]


def test_a_checkpoint_of_format_2_has_the_values_that_were_saved() -> None:
    loaded = load_checkpoint(RUN / FILE)
    assert loaded.config == TrainConfig(
        seed=7,
        batch_size=2,
        anneal_by_reward=False,
        weight_decay=0.0,
        repeat_noise_probability=0.0,
        hidden_units=2,
        crop=(100, 104, 140, 144),
        frame_limit=600,
        stop_episodes=6,
        checkpoint_every=1,
        keep=1,
    )
    state = loaded.state
    assert state.progress == Progress(
        update=3,
        episodes=6,
        frames=3600,
        wall_seconds=3.0,
        running_mean=-2.9411860797999987,
        last_rewards=(-3.0, -1.0, -3.0, -1.0, -3.0, -1.0),
        best_reward=-1.0,
    )
    assert list(state.policies) == [2, 3]
    for arrays, expected in ((state.policy, (W1, W2)), (state.cache, (CACHE_W1, CACHE_W2))):
        for array, values in zip(arrays.arrays, expected, strict=True):
            assert array.dtype == np.float32
            assert array.tolist() == values
    assert weights_checksum(state.policies[2]) == "8e0c1b905ec31e04"
    assert loaded.versions["distributed-pg"] == "0.1.0"
    assert load_policy(RUN).policy.w1.tolist() == W1


def test_a_run_of_format_2_is_gone_on_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One more update, whose gradient is 1 in one component of each layer, and 0 elsewhere."""
    shutil.copytree(RUN, tmp_path / "run")
    played = []

    def play(task: EpisodeTask, policy: Policy) -> tuple[EpisodeStats, Gradient]:
        played.append((task.episode, weights_checksum(policy)))
        row, w1, w2 = np.zeros(1, np.int32), np.zeros((1, 2)), np.zeros((2, 2))
        w1[0, 1] = w2[1, 0] = 0.5
        gradient = Gradient(row, row, w1.astype(np.float32), w2.astype(np.float32))
        return EpisodeStats(2.0, 10, 40, 0.0, 1.0, 2, 0, 0.5), gradient

    config = saved_config(tmp_path / "run").to_go_on(tmp_path / "run", stop_episodes=8)
    with open_run(config) as run:
        path, loaded = run.load_newest()
        check_same_run(config, loaded.config)
        assert held_conditions(config, loaded.state.progress) == []
        assert list(repairs(run.path, config, loaded)) == []
        path, aside = run.rewind(config, 3, path)
        pool = SimulatedWorkerPool(play, 2)
        learner = Learner(config, loaded.state, pool, run, NullReporter(), path, clock=pool.clock)
        assert learner.run(lambda: False)
        saved = load_checkpoint(learner.save()).state
    assert (aside, caplog.messages) == ([], [])
    assert sorted(played) == [(6, "8e0c1b905ec31e04"), (7, "8e0c1b905ec31e04")]  # version 2

    # RMSProp at update 4: decay 3/4 (warm-up), learning rate 0.003 / (1 + 6/2000).
    rate = 0.003 / (1 + 6 / 2000)
    expected = {"w1": np.array(W1), "w2": np.array(W2)}
    cache = {"w1": 0.75 * np.array(CACHE_W1), "w2": 0.75 * np.array(CACHE_W2)}
    for name, at in (("w1", (0, 1)), ("w2", (1, 0))):
        cache[name][at] += 0.25
        expected[name][at] += rate / (np.sqrt(cache[name][at]) + 1e-5)
        np.testing.assert_allclose(getattr(saved.policy, name), expected[name], rtol=1e-6)
        np.testing.assert_allclose(getattr(saved.cache, name), cache[name], rtol=1e-6)
    progress = saved.progress
    assert (progress.update, progress.episodes, progress.frames) == (4, 8, 3680)
    assert progress.last_rewards == (-3.0, -1.0, -3.0, -1.0, -3.0, -1.0, 2.0, 2.0)
    lines = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [line["update"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("found", "reader"), [("checkpoint 1", "an older"), ("checkpoint 3", "a newer")]
)
def test_another_version_of_the_format_is_named(tmp_path: Path, found: str, reader: str) -> None:
    path = tmp_path / "c.safetensors"
    write_tensor_file(path, {"format": f"distributed_pg {found}"}, {"w": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(path)
    assert str(raised.value) == (
        f"{path}: has the format 'distributed_pg {found}', which {reader} version of "
        "distributed_pg reads; this one reads 'distributed_pg checkpoint 2'"
    )


@pytest.mark.parametrize(
    "found",
    ["", "checkpoint 3", "distributed_pg checkpoint x", "distributed_pg checkpoint 3\n", "9" * 99],
)
def test_a_format_of_others_is_not_named(tmp_path: Path, found: str) -> None:
    path = tmp_path / "c.safetensors"
    write_tensor_file(path, {"format": found}, {"w": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match=r"c\.safetensors: not a distributed_pg checkpoint$"):
        load_checkpoint(path)


def test_another_version_of_a_policy_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    write_tensor_file(path, {"format": "distributed_pg policy 2"}, {"w": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match=r"this one reads 'distributed_pg policy 1'$"):
        load_policy(path)
