"""The real learner on a simulated pool: the same bits whatever happens on the way."""

import functools
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_pool import Clock, Faults, SimulatedWorkerPool, play_for_real

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rmsprop import RMSProp, norm
from distributed_pg.algo.rollout import EpisodeStats, rollout
from distributed_pg.algo.state import TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import PongEnv
from distributed_pg.errors import RunError, UsageError
from distributed_pg.monitoring.reporter import NullReporter
from distributed_pg.storage.checkpoint import load_checkpoint, weights_checksum
from distributed_pg.storage.metrics import METRICS, UpdateRecord, read_metrics
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.training.learner import Learner
from distributed_pg.training.schedule import EpisodeTask
from distributed_pg.training.worker_pool import EpisodeDone, PoolEvent

# Games of 160 steps: long enough for points, short enough for many runs.
CONFIG = TrainConfig(
    seed=7, batch_size=3, stop_episodes=12, frame_limit=320, hidden_units=20, checkpoint_every=2
)


class Recorder:
    def __init__(self) -> None:
        self.records: list[UpdateRecord] = []

    def updated(self, record: UpdateRecord) -> None:
        self.records.append(record)


def make_cluster(config: TrainConfig, workers: int, **faults: Any) -> SimulatedWorkerPool:
    """A pool whose workers play real games."""
    return SimulatedWorkerPool(play_for_real(config), workers, Faults(**faults), seed=len(faults))


def make_learner(
    config: TrainConfig,
    folder: Path,
    state: TrainingState,
    pool: SimulatedWorkerPool,
    reporter: Recorder,
) -> Learner:
    """A learner at ``state``, as train() makes one: with a checkpoint of it on the disk."""
    new = not folder.exists()
    run_dir = RunDir.create(replace(config, run_dir=folder)) if new else RunDir.open(folder)
    saved = run_dir.save(config, state, best=False)
    return Learner(config, state, pool, run_dir, reporter, saved, pool.clock)


def run(
    config: TrainConfig,
    folder: Path,
    state: TrainingState | None = None,
    workers: int = 2,
    **faults: Any,
) -> tuple[TrainingState, Recorder, SimulatedWorkerPool]:
    state = state or TrainingState.initial(config)
    reporter, pool = Recorder(), make_cluster(config, workers, **faults)
    learner = make_learner(config, folder, state, pool, reporter)
    assert learner.run(lambda: False)
    learner.save()
    return learner.state, reporter, pool


Undisturbed = Callable[[int], tuple[TrainingState, Recorder]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The run of ``CONFIG`` with a policy lag on two workers that never fail, made once."""

    @functools.cache
    def of_lag(policy_lag: int) -> tuple[TrainingState, Recorder]:
        folder = tmp_path_factory.mktemp("undisturbed") / "run"
        return run(replace(CONFIG, policy_lag=policy_lag), folder)[:2]

    return of_lag


def by_the_definition(config: TrainConfig, updates: int) -> Policy:
    """The run as the README defines it, one episode after another."""
    env = PongEnv(**config.env_settings())
    versions = [TrainingState.initial(config).policy]
    annealed = config.anneal_episodes or math.inf
    cache = versions[0].zeros_like()
    for update in range(updates):
        total = versions[0].zeros_like()
        player = versions[max(0, update - config.policy_lag)]
        for i in range(config.batch_size):
            episode = update * config.batch_size + i
            played = rollout(env, player, config, episode)
            gradient = played.gradient
            total.w1[gradient.rows] += gradient.unique_w1_rows[gradient.row_index]
            total.w2[...] += gradient.w2
        policy = versions[-1].copy()
        rate = config.learning_rate / (1 + update * config.batch_size / annealed)
        decay = min(config.decay, update / (update + 1)) if config.warm_up else config.decay
        RMSProp(rate, decay).step(policy, cache, total)
        versions.append(policy)
    return versions[-1]


@pytest.mark.parametrize(
    ("workers", "policy_lag", "said"),
    [
        (2, 0, None),
        (3, 0, "3 workers, but at most 2 episodes at a time"),
        (2, 1, None),
        (5, 1, "5 workers, but at most 4 episodes at a time"),
        (5, 2, "5 workers, but at most 6 episodes at a time"),
    ],
)
def test_workers_that_will_wait_are_told_once(
    tmp_path: Path, told: list[str], workers: int, policy_lag: int, said: str | None
) -> None:
    config = replace(CONFIG, batch_size=2, policy_lag=policy_lag, stop_episodes=8, frame_limit=4)
    run(config, tmp_path / "run", workers=workers)
    lines = [line for line in told if "batch_size" in line]
    assert len(lines) == (said is not None)
    assert said is None or re.match(said, lines[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"policy_lag": 0},
        {"baseline": "mean", "anneal_episodes": None},
        {"policy_lag": 3, "anneal_episodes": 2},
    ],
)
def test_the_run_is_what_its_definition_says(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = replace(CONFIG, **settings)
    state, _, pool = run(config, tmp_path / "run", workers=5)
    assert weights_checksum(state.policy) == weights_checksum(by_the_definition(config, 4))
    assert pool.most_weights <= config.policy_lag + 2  # the new one comes before the oldest goes


@pytest.mark.parametrize("policy_lag", [0, 1])
@pytest.mark.parametrize(
    ("workers", "faults"),
    [
        (1, {}),
        (7, {}),
        (4, {"dies_during": 0.2, "dies_after": 0.2}),
        (9, {"node_dies": 0.1, "announced_twice": 0.3, "slow": 0.1}),
    ],
)
def test_same_bits_whatever_the_workers_and_the_faults(
    tmp_path: Path,
    undisturbed: Undisturbed,
    policy_lag: int,
    workers: int,
    faults: dict[str, float],
) -> None:
    config = replace(CONFIG, policy_lag=policy_lag)
    expected, reference = undisturbed(policy_lag)
    state, reporter, pool = run(config, tmp_path / "run", None, workers, **faults)
    assert weights_checksum(state.policy) == weights_checksum(expected.policy)
    for ours, theirs in zip(reporter.records, reference.records, strict=True):
        assert ours.weights_checksum == theirs.weights_checksum
        assert (ours.rewards, ours.running_mean) == (theirs.rewards, theirs.running_mean)
    assert bool(pool.faults) == bool(faults)


@pytest.mark.parametrize("policy_lag", [0, 2])
@pytest.mark.parametrize("stop", [3, 8])  # with a checkpoint there already, and without
def test_stopped_and_resumed_is_the_same_run(
    tmp_path: Path, undisturbed: Undisturbed, policy_lag: int, stop: int
) -> None:
    config = replace(CONFIG, policy_lag=policy_lag)
    whole, _ = undisturbed(policy_lag)
    run(replace(config, stop_episodes=stop), tmp_path / "run")
    checkpoint = load_checkpoint(RunDir.open(tmp_path / "run").newest_checkpoint())
    resumed, _, _ = run(config, tmp_path / "run", checkpoint.state)
    assert weights_checksum(resumed.policy) == weights_checksum(whole.policy)
    assert resumed.cache.w1.tobytes() == whole.cache.w1.tobytes()
    assert replace(resumed.progress, wall_seconds=0) == replace(whole.progress, wall_seconds=0)


def test_another_seed_is_another_run(tmp_path: Path, undisturbed: Undisturbed) -> None:
    one, _ = undisturbed(CONFIG.policy_lag)
    other, _, _ = run(replace(CONFIG, seed=8), tmp_path / "other")
    assert weights_checksum(one.policy) != weights_checksum(other.policy)


def test_asked_to_stop_it_stops_between_updates(tmp_path: Path) -> None:
    config = replace(CONFIG, stop_episodes=None)
    state, reporter = TrainingState.initial(config), Recorder()
    pool = make_cluster(config, 3)
    learner = make_learner(config, tmp_path / "run", state, pool, reporter)
    assert not learner.run(lambda: len(reporter.records) >= 2)
    assert learner.state.progress.update == len(reporter.records) >= 2
    loaded = load_checkpoint(learner.save())
    assert weights_checksum(loaded.state.policy) == reporter.records[-1].weights_checksum


def test_stop_conditions(tmp_path: Path) -> None:
    cut_off = replace(CONFIG, frame_limit=4, stop_episodes=None)
    by_episodes, _, _ = run(replace(cut_off, stop_episodes=4), tmp_path / "episodes")
    assert by_episodes.progress.episodes == 6  # whole updates
    by_minutes, _, _ = run(replace(cut_off, stop_minutes=0.01), tmp_path / "m")
    assert by_minutes.progress.wall_seconds < 0.6  # what is not finished by then is dropped
    short = replace(cut_off, batch_size=60, stop_reward=-1.0)
    by_reward, _, _ = run(short, tmp_path / "reward")
    assert by_reward.progress.episodes == 120  # never before 100 episodes


def test_a_plateau_stops_a_run_at_the_same_update_wherever_it_was_resumed(tmp_path: Path) -> None:
    """Of games that are cut off at once, with a mean of 0: it is reached after 100 episodes."""
    config = replace(CONFIG, frame_limit=4, batch_size=60, stop_episodes=None, stop_plateau=200)
    whole, _, _ = run(config, tmp_path / "whole")
    assert whole.progress.episodes == 120 + 240  # at 120, 300 or 360: whole updates
    assert whole.progress.peak_mean_100 == 0.0
    first, _, _ = run(replace(config, stop_episodes=180), tmp_path / "run")
    loaded = load_checkpoint(RunDir.open(tmp_path / "run").newest_checkpoint()).state
    assert loaded.progress == first.progress
    second, _, _ = run(config, tmp_path / "run", loaded)
    assert weights_checksum(second.policy) == weights_checksum(whole.policy)


def test_a_callback_stops_a_run_and_all_see_every_update(tmp_path: Path) -> None:
    pool, state = make_cluster(CONFIG, 2), TrainingState.initial(CONFIG)
    seen: list[int] = []

    def budget(record: UpdateRecord) -> bool:
        return record.episodes >= 6

    def later(record: UpdateRecord) -> None:
        seen.append(record.update)

    run_dir = RunDir.create(replace(CONFIG, run_dir=tmp_path / "run"))
    saved = run_dir.save(CONFIG, state, best=False)
    learner = Learner(
        CONFIG, state, pool, run_dir, NullReporter(), saved, pool.clock, [budget, later]
    )
    assert learner.run(lambda: False)  # as if a stop condition held
    assert seen == [1, 2]
    assert learner.state.progress.episodes == 6


def test_a_callback_that_raises_ends_the_run_with_its_update_made(tmp_path: Path) -> None:
    pool, state = make_cluster(CONFIG, 2), TrainingState.initial(CONFIG)
    run_dir = RunDir.create(replace(CONFIG, run_dir=tmp_path / "run"))
    saved = run_dir.save(CONFIG, state, best=False)

    def fail(record: UpdateRecord) -> None:
        raise LookupError(record.weights_checksum)

    learner = Learner(CONFIG, state, pool, run_dir, NullReporter(), saved, pool.clock, [fail])
    with pytest.raises(LookupError) as raised:
        learner.run(lambda: False)
    loaded = load_checkpoint(learner.save())
    assert loaded.state.progress.update == 1
    assert weights_checksum(loaded.state.policy) == str(raised.value).strip("'")


def test_metrics_and_checkpoints_on_disk(tmp_path: Path) -> None:
    state, _, _ = run(replace(CONFIG, stop_episodes=21, keep=2), tmp_path / "run")
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["episodes"] for line in lines] == [3, 6, 9, 12, 15, 18, 21]
    last = lines[-1]
    assert last["frames"] == state.progress.frames
    assert last["weights_checksum"] == weights_checksum(state.policy)
    assert len(last["rewards"]) == 3
    rates = [3e-3 / (1 + 3 * update / 2000) for update in range(7)]
    assert [line["learning_rate"] for line in lines] == pytest.approx(rates, rel=1e-12)
    assert lines[0]["lengths"] == [160, 160, 160]  # 320 frames, 2 a step
    assert last["workers"] == 2
    assert [line["policy_lag"] for line in lines] == [0, *[CONFIG.policy_lag] * 6]
    assert last["weights_norm"] == norm(state.policy)
    assert {"running_mean", "mean_100", "episodes_per_hour", "gradient_norm"} <= last.keys()
    assert last["wall_seconds"] > 0
    assert last["frames_per_second"] > 0
    assert last["learner_memory"] > 10**7
    assert last["worker_busy"] == 1.0  # simulated workers never wait
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["update-00000006.safetensors", "update-00000007.safetensors"]
    config = TrainConfig.from_json(json.loads((tmp_path / "run/config.json").read_text()))
    assert config.batch_size == 3


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


def test_a_gradient_that_is_not_finite_stops_the_run_and_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SimulatedWorkerPool.poll

    def spoilt(self: SimulatedWorkerPool, timeout: float, deadline: float) -> list[PoolEvent]:
        events = real(self, timeout, deadline)
        for event in events:
            if isinstance(event, EpisodeDone) and event.task.episode == 6:
                event.gradient.w2[0, 0] = np.nan
        return events

    monkeypatch.setattr(SimulatedWorkerPool, "poll", spoilt)
    state = TrainingState.initial(CONFIG)
    pool = make_cluster(CONFIG, 2)
    learner = make_learner(CONFIG, tmp_path / "run", state, pool, Recorder())
    with pytest.raises(RunError, match="the gradient of update 3 cannot be used: not all"):
        learner.run(lambda: False)
    loaded = load_checkpoint(learner.save())
    assert loaded.state.progress.update == 2
    assert np.isfinite(loaded.state.policy.w1).all()


def test_a_failure_in_the_middle_of_an_update_harms_no_checkpoint(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new weights are made, and the pool cannot take them."""
    whole, _ = undisturbed(CONFIG.policy_lag)
    real = SimulatedWorkerPool.broadcast

    def failing(self: SimulatedWorkerPool, version: int, policy: Policy) -> None:
        if version == 3:
            raise RunError("the store is full")
        real(self, version, policy)

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedWorkerPool, "broadcast", failing)
        state = TrainingState.initial(CONFIG)
        pool = make_cluster(CONFIG, 2)
        learner = make_learner(CONFIG, tmp_path / "run", state, pool, Recorder())
        with pytest.raises(RunError, match="the store is full"):
            learner.run(lambda: False)
        loaded = load_checkpoint(learner.save())
    # It counts as made when its line is in the metrics, and is made again.
    assert loaded.state.progress.update == 2
    assert [line["update"] for line in read_metrics(tmp_path / "run" / METRICS)] == [1, 2]
    resumed, _, _ = run(CONFIG, tmp_path / "run", loaded.state)
    assert weights_checksum(resumed.policy) == weights_checksum(whole.policy)


@pytest.mark.parametrize("leftover", ["config.json", "metrics.jsonl", "checkpoints"])
def test_a_folder_with_anything_of_a_run_is_not_written_to(tmp_path: Path, leftover: str) -> None:
    (tmp_path / leftover).mkdir()
    with pytest.raises(UsageError, match="holds a run already"):
        RunDir.create(replace(CONFIG, run_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [leftover]
