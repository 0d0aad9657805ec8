"""What the learner writes: metrics, records and checkpoints."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from learner_runs import CONFIG, Recorder, make_learner, run
from simulated_pool import Clock, Faults, SimulatedWorkerPool

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.episode import EpisodeStats
from distributed_pg.errors import UsageError
from distributed_pg.storage.checkpoint import load_checkpoint, weights_checksum
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.training.schedule import EpisodeTask


def test_metrics_and_checkpoints_on_disk(tmp_path: Path) -> None:
    config = replace(CONFIG, anneal_episodes=10, stop_episodes=21, keep=2)
    state, _, _ = run(config, tmp_path / "run")
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["episodes"] for line in lines] == [3, 6, 9, 12, 15, 18, 21]
    last = lines[-1]
    assert last["frames"] == state.progress.frames
    assert last["weights_checksum"] == weights_checksum(state.policy)
    assert len(last["rewards"]) == 3
    rates = [3e-3 / (1 + 3 * update / 10) for update in range(7)]
    assert [line["learning_rate"] for line in lines] == pytest.approx(rates, rel=1e-12)
    assert lines[0]["lengths"] == [160, 160, 160]  # 320 frames, 2 a step
    assert last["workers"] == 2
    assert [line["policy_lag"] for line in lines] == [0, *[CONFIG.policy_lag] * 6]
    weights = np.concatenate([array.ravel() for array in state.policy.arrays])
    assert last["weights_norm"] == pytest.approx(np.linalg.norm(weights.astype(float)), rel=1e-5)
    assert {"running_mean", "mean_100", "episodes_per_hour", "gradient_norm"} <= last.keys()
    assert last["wall_seconds"] > 0
    assert last["frames_per_second"] > 0
    assert last["learner_memory"] > 10**7
    assert last["worker_busy"] == 1.0  # simulated workers never wait
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["update-00000006.safetensors", "update-00000007.safetensors"]
    saved = json.loads((tmp_path / "run/config.json").read_text())
    assert TrainConfig.from_json(saved) == config


def test_a_record_by_hand(tmp_path: Path) -> None:
    games = {0: (1, 21, 100, 0.5), 1: (21, 3, 300, 0.25), 2: (0, 0, 10, 0.5), 3: (0, 0, 10, 0.5)}
    no_row, no_gradient = np.empty(0, np.int32), np.empty((0, 20), np.float32)
    nothing = no_row, no_row, no_gradient, np.zeros((20, 1), np.float32)
    clock = Clock()

    class SlowToAdd(Gradient):
        def add_to(self, total: Policy) -> None:
            clock.now += 0.25
            super().add_to(total)

    def play(task: EpisodeTask, policy: Policy) -> tuple[EpisodeStats, Gradient]:
        won, lost, steps, entropy = games[task.episode]
        return EpisodeStats(won - lost, steps, 0, 0.0, 1.0, won, lost, entropy), SlowToAdd(*nothing)

    class SlowStore(SimulatedWorkerPool):
        def broadcast(self, version: int, policy: Policy) -> None:
            self.clock.now += 2.0
            super().broadcast(version, policy)

    config = replace(CONFIG, batch_size=2, stop_episodes=4)
    reporter, pool = Recorder(), SlowStore(play, 2, Faults(), clock=clock)
    state = TrainingState.initial(config)
    learner = make_learner(config, tmp_path / "run", state, pool, reporter)
    assert learner.run(lambda: False)
    first, second = reporter.records
    assert (first.rewards, first.lengths) == ([-20, 18], [100, 300])
    assert (first.points_won, first.points_lost) == (22, 24)
    assert first.points_share == round(22 / 46, 4)
    assert first.entropy == (0.5 * 100 + 0.25 * 300) / 400
    assert second.points_share is None  # no point was played
    assert (first.policy_lag, second.policy_lag) == (0, 1)
    assert (first.update_seconds, second.update_seconds) == (2.5, 2.5)


def test_the_best_checkpoint_is_kept(tmp_path: Path) -> None:
    config = replace(CONFIG, frame_limit=4, batch_size=50, stop_episodes=200, keep=1)
    state, _, _ = run(config, tmp_path / "run")
    best = load_checkpoint(tmp_path / "run/checkpoints/best.safetensors")
    # No game of one step is better than another: the first mean of 100 games stays the best.
    assert best.state.progress.episodes == 100
    assert state.progress.best_mean_100 == best.state.progress.mean_100 == 0.0


def test_after_a_kill_the_metrics_of_lost_updates_are_made_again(tmp_path: Path) -> None:
    run(replace(CONFIG, stop_episodes=6), tmp_path / "run")
    metrics = tmp_path / "run/metrics.jsonl"
    kept = metrics.read_text()
    # Updates made after the last checkpoint, and a line cut short by the kill.
    with metrics.open("a") as file:
        file.write(kept.splitlines()[0].replace('"update": 1,', '"update": 3,') + "\n")
        file.write('{"update": 4, "episo')
    run_dir = RunDir.open(tmp_path / "run")
    run_dir.rewind(CONFIG, update=2)
    assert metrics.read_text() == kept


@pytest.mark.parametrize("leftover", ["config.json", "metrics.jsonl", "checkpoints"])
def test_a_folder_with_anything_of_a_run_is_not_written_to(tmp_path: Path, leftover: str) -> None:
    (tmp_path / leftover).mkdir()
    with pytest.raises(UsageError, match="holds a run already"):
        RunDir.create(replace(CONFIG, run_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [leftover]
