"""Training on real Ray: the same bits with any number of workers, after a kill, after a stop."""

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from command import until
from learner_runs import run
from worker_processes import worker_processes

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import PongEnv
from distributed_pg.episode import EpisodeStats, evaluate_episode
from distributed_pg.errors import RunError, UsageError
from distributed_pg.evaluation import Evaluation, evaluate, summary
from distributed_pg.storage.checkpoint import load_checkpoint, weights_checksum
from distributed_pg.storage.metrics import METRICS, UpdateRecord, read_metrics
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.trainer import resume_config, train
from distributed_pg.training.rollout_worker import RolloutWorker

pytestmark = pytest.mark.usefixtures("local_ray")

CONFIG = TrainConfig(seed=7, batch_size=10, frame_limit=500, stop_episodes=40)


class Observer:
    """A reporter that calls back after each update."""

    def __init__(self, after_update: Callable[[UpdateRecord], None] = lambda _: None) -> None:
        self.workers: list[int] = []
        self.busy: list[float] = []
        self._after_update = after_update

    def updated(self, record: UpdateRecord) -> None:
        self.workers.append(record.workers)
        self.busy.append(record.worker_busy)
        self._after_update(record)


@dataclass(frozen=True)
class Reference:
    """A run without Ray."""

    run_dir: Path
    weights_checksum: str


def played_without_ray(config: TrainConfig, run_dir: Path) -> Reference:
    state, *_ = run(config, run_dir)
    return Reference(run_dir, weights_checksum(state.policy))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The run without Ray."""
    return played_without_ray(CONFIG, tmp_path_factory.mktemp("reference") / "run")


@pytest.mark.exhaustive
def test_same_bits_with_three_workers_and_without_a_lag(tmp_path: Path) -> None:
    observer = Observer()
    config = replace(CONFIG, policy_lag=0)
    result = train(replace(config, num_workers=3, run_dir=tmp_path / "run"), observer)
    alone = played_without_ray(config, tmp_path / "alone")
    assert result.weights_checksum == alone.weights_checksum
    assert (result.progress.update, result.progress.episodes) == (4, 40)
    assert not result.interrupted
    assert observer.workers[-1] == 3
    assert all(0.5 < busy < 1.0 for busy in observer.busy)


@pytest.mark.exhaustive  # test_remote_run.py has a run that is stopped and resumed
def test_same_bits_when_asked_to_stop_in_the_middle(tmp_path: Path, reference: Reference) -> None:
    asked = threading.Event()
    observer = Observer(lambda _: asked.set())
    config = replace(CONFIG, num_workers=2, run_dir=tmp_path / "run", stop_episodes=30)
    first = train(config, observer, asked.is_set)
    assert first.interrupted
    assert 0 < first.progress.episodes < 30
    second = train(resume_config(first.run_dir, stop_episodes=40, num_workers=1))
    assert second.weights_checksum == reference.weights_checksum
    lines = [json.loads(line) for line in (first.run_dir / METRICS).read_text().splitlines()]
    assert [line["update"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.exhaustive  # below, the only worker is killed
def test_same_bits_when_a_worker_is_killed(
    tmp_path: Path, reference: Reference, told: list[str]
) -> None:
    killed: list[int] = []

    def kill_one(record: UpdateRecord) -> None:
        if record.update in (1, 2):
            victim = worker_processes()[0]
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    observer = Observer(kill_one)
    config = replace(CONFIG, num_workers=2, run_dir=tmp_path / "run")
    result = train(config, observer)
    assert result.weights_checksum == reference.weights_checksum
    assert len(set(killed)) == 2
    # With short games, a second worker may have played the lost episode before the loss was known.
    lost = ("is played again", "lost a worker; another worker has played it")
    assert any(text in line for line in told for text in lost)


@pytest.mark.exhaustive  # test_begin_or_go_on.py has a run with batches of one game
@pytest.mark.parametrize(
    ("batch_size", "episodes_per_task", "need_a_holder"), [(1, 1, False), (4, 2, True)]
)
def test_batches_of_one_game_and_tasks_of_two_have_the_same_bits_too(
    tmp_path: Path, batch_size: int, episodes_per_task: int, need_a_holder: bool
) -> None:
    holders: list[psutil.Process] = []

    def kill_one(record: UpdateRecord) -> None:
        holders.extend(worker_processes("WeightsHolder"))
        if record.update in (1, 3):
            os.kill(worker_processes()[0].pid, signal.SIGKILL)

    config = replace(
        CONFIG,
        batch_size=batch_size,
        episodes_per_task=episodes_per_task,
        policy_lag=2,
        current_frame=batch_size == 1,
        stop_episodes=24,
    )
    alone = played_without_ray(config, tmp_path / "alone")
    killed = replace(config, num_workers=2, stop_episodes=16, run_dir=tmp_path / "run")
    first = train(killed, Observer(kill_one))
    assert first.progress.episodes == 16
    second = train(resume_config(first.run_dir, stop_episodes=24, num_workers=3), None)
    assert second.weights_checksum == alone.weights_checksum
    assert bool(holders) == need_a_holder


def test_same_bits_when_the_weights_holder_dies_and_hangs(tmp_path: Path, told: list[str]) -> None:
    # What a stopped holder misses is the version of the next update, which the batch after the
    # next one needs.
    harm = {1: signal.SIGKILL, 4: signal.SIGSTOP}

    def harmed(record: UpdateRecord) -> None:
        if record.update in harm:
            until(lambda: len(worker_processes("WeightsHolder")) == 1)  # it may be restarting
            worker_processes("WeightsHolder")[0].send_signal(harm[record.update])

    config = replace(CONFIG, batch_size=5)
    alone = played_without_ray(config, tmp_path / "alone")
    config = replace(config, num_workers=2, hang_seconds=10, run_dir=tmp_path / "run")
    result = train(config, Observer(harmed))
    assert result.progress.update == 8
    assert result.weights_checksum == alone.weights_checksum
    # Ray restarts a killed holder by itself, but on a busy machine not always in time.
    silent = sum("the process that holds the weights was silent" in line for line in told)
    assert silent in (1, 2)


def test_the_only_worker_is_replaced_when_it_dies_and_when_it_hangs(
    tmp_path: Path, reference: Reference, told: list[str]
) -> None:
    stopped: list[psutil.Process] = []

    def harmed(record: UpdateRecord) -> None:
        if record.update == 1:
            worker_processes()[0].kill()
        if record.update == 2:
            stopped.append(worker_processes()[0])
            stopped[0].send_signal(signal.SIGSTOP)

    config = replace(
        CONFIG, num_workers=1, hang_seconds=2, checkpoint_every=1, run_dir=tmp_path / "run"
    )
    result = train(config, Observer(harmed))
    assert result.weights_checksum == reference.weights_checksum
    assert any("silent for" in line for line in told)
    psutil.wait_procs(stopped, timeout=30)
    assert not stopped[0].is_running()


def failing(times: int) -> type[RolloutWorker]:
    """Workers with an exception in their code, in the first attempts at episode 5."""

    class Failing(RolloutWorker):  # in here, because workers cannot import this module
        attempts = times

        def play(self, episode: int, policy: Policy) -> tuple[list[EpisodeStats], Gradient]:
            if episode == 5 and self.attempts > 0:
                self.attempts -= 1
                raise ZeroDivisionError("by chance")
            return super().play(episode, policy)

    return Failing


def test_an_episode_that_fails_is_tried_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reference: Reference,
    told: list[str],
) -> None:
    monkeypatch.setattr("distributed_pg.runtime.actor.RolloutWorker", failing(2))
    result = train(replace(CONFIG, num_workers=1, run_dir=tmp_path / "run"), None)
    assert result.weights_checksum == reference.weights_checksum
    again = "episode 5 failed and is tried again (ZeroDivisionError: by chance)"
    assert told == [again, again]


def test_an_episode_that_fails_three_times_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distributed_pg.runtime.actor.RolloutWorker", failing(1000))
    config = replace(CONFIG, num_workers=2, batch_size=2, run_dir=tmp_path / "run")
    with pytest.raises(RunError) as raised:
        train(config)
    text = str(raised.value)
    assert text.startswith("episode 5 (weights version 1) failed 3 times; the last time:")
    assert "by chance" in text
    assert "in play" in text  # the traceback
    assert "\x1b" not in text
    # The other worker may not have played the batch before by then: one update or two.
    done = read_metrics(tmp_path / "run" / METRICS)[-1]["update"]
    newest = RunDir.open(tmp_path / "run").newest_checkpoint()
    assert load_checkpoint(newest).state.progress.update == done > 0


def test_no_worker_is_left_behind(reference: Reference) -> None:
    gone, alive = psutil.wait_procs(worker_processes(), timeout=30)
    assert not alive, gone


def test_a_run_that_has_reached_its_end_is_not_continued(reference: Reference) -> None:
    newest = RunDir.open(reference.run_dir).newest_checkpoint()
    again = train(resume_config(reference.run_dir))
    assert again.weights_checksum == reference.weights_checksum
    assert again.checkpoint == newest


def test_a_changed_setting_is_refused_by_name(reference: Reference) -> None:
    run_dir = reference.run_dir
    before = (run_dir / "config.json").read_bytes()
    with pytest.raises(UsageError, match=r"learning_rate: the run in .* has 0\.003, not 0.1"):
        train(resume_config(run_dir, learning_rate=0.1))
    assert (run_dir / "config.json").read_bytes() == before


def test_a_run_is_never_overwritten(reference: Reference) -> None:
    with pytest.raises(UsageError, match="holds a run already; --resume"):
        train(replace(CONFIG, run_dir=reference.run_dir))


def test_evaluate_is_a_function_of_its_seed(reference: Reference) -> None:
    run_dir = reference.run_dir
    counts: list[int] = []

    def kill(count: int) -> None:
        counts.append(count)
        if count == 1:
            worker_processes()[0].kill()

    policy = load_checkpoint(RunDir.open(run_dir).newest_checkpoint()).state.policy
    env = PongEnv(**CONFIG.env_settings())
    games = [evaluate_episode(env, policy, seed=1, episode=i, greedy=False) for i in range(6)]
    assert evaluate(run_dir, 6, seed=1, num_workers=2, finished=kill) == summary(games)
    assert counts == [1, 2, 3, 4, 5, 6]


def test_summary_by_hand() -> None:
    rewards, steps = (5.0, -1.0, 2.0), (10, 20, 30)
    games = [EpisodeStats(r, n, 0, 0, 0, 0, 0, 0) for r, n in zip(rewards, steps, strict=True)]
    assert summary(games) == Evaluation(
        episodes=3,
        mean=2.0,
        std=3.0,
        sem=3.0 / 3**0.5,
        best=5.0,
        worst=-1.0,
        won=2 / 3,
        mean_length=20.0,
    )
    alone = summary(games[:1])
    assert alone.std is None
    assert alone.sem is None
