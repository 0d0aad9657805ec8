"""The real learner on a simulated pool: the same bits whatever happens on the way."""

import functools
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learner_runs import CONFIG, Recorder, make_cluster, make_learner, run
from simulated_pool import SimulatedWorkerPool, env_of

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rmsprop import RMSProp
from distributed_pg.algo.state import TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.episode import rollout
from distributed_pg.errors import RunError
from distributed_pg.monitoring.reporter import NullReporter
from distributed_pg.storage.checkpoint import load_checkpoint, weights_checksum
from distributed_pg.storage.metrics import METRICS, UpdateRecord, read_metrics
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.training.learner import Learner
from distributed_pg.training.worker_pool import EpisodeDone, PoolEvent

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
    env = env_of(config)
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
        policy.w1[...] *= 1 - rate * config.weight_decay
        RMSProp(rate, decay, 80).step(policy, cache, total)
        versions.append(policy)
    return versions[-1]


@pytest.mark.parametrize(
    ("workers", "policy_lag", "said"),
    [
        (2, 0, None),
        (3, 0, "3 workers, but at most 2 can play at a time"),
        (2, 1, None),
        (5, 1, "5 workers, but at most 4 can play at a time"),
        (5, 2, None),
        (7, 2, "7 workers, but at most 6 can play at a time"),
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
        {"current_frame": True, "weight_decay": 2.0},
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


def test_a_gradient_that_is_not_finite_stops_the_run_and_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SimulatedWorkerPool.poll

    def spoilt(self: SimulatedWorkerPool, timeout: float, deadline: float) -> list[PoolEvent]:
        return [
            replace(event, gradient=replace(event.gradient, w2=event.gradient.w2 * np.nan))
            if isinstance(event, EpisodeDone) and event.task.episode == 6
            else event
            for event in real(self, timeout, deadline)
        ]

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
