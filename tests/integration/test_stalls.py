"""A learner that stood still must not take its workers for hung: they could not be heard."""

import math
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from command import COMMAND, DEADLINE, metrics, until
from learner_runs import run as run_without_ray
from simulated_pool import Clock

from distributed_pg.algo.state import TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.episode import EpisodeStats
from distributed_pg.runtime import ray_worker_pool, task_router, worker_lifecycle
from distributed_pg.runtime.ray_worker_pool import RayWorkerPool
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.system_info import library_versions, own_code
from distributed_pg.training.polled_clock import MOST_SECONDS, PolledClock
from distributed_pg.training.rollout_worker import WorkerInfo
from distributed_pg.training.schedule import EpisodeTask
from distributed_pg.training.worker_pool import EpisodeDone, WorkerLost

HANG = 60.0
STATS = EpisodeStats(0.0, 10, 40, 0.1, 0.1, 0, 0, 0.0)


@dataclass(eq=False)
class Answer:
    """A reference; ``at``: when the worker has answered. Ray finds out ``late`` seconds after."""

    value: object
    at: float


@dataclass
class FakeRay:
    """Workers that are ready at once and play for ``seconds``, by a clock that is set by hand."""

    clock: Clock
    seconds: float = 0.1
    finds_out_after: float = 0.0
    """Seconds of waiting before Ray tells of what lies ready."""
    ready_after: float = 0.0
    killed: list[object] = field(default_factory=list)
    waited: float = 0.0

    def worker(self, _: TrainConfig) -> SimpleNamespace:
        info = WorkerInfo(1, library_versions(), own_code())
        prepare = SimpleNamespace(remote=lambda: self._answer(info, self.ready_after))
        return SimpleNamespace(
            prepare=prepare, play=lambda *_: self._answer((STATS, None), self.seconds)
        )

    def _answer(self, value: object, seconds: float) -> Answer:
        return Answer(value, self.clock.now + seconds)

    def wait(
        self, pending: list[Answer], *, num_returns: int, timeout: float
    ) -> tuple[list[Answer], list[Answer]]:
        asked = self.clock.now
        due = sorted((one.at, i) for i, one in enumerate(pending))
        enough = max(due[num_returns - 1][0], self.waited_enough())
        self.clock.now = max(asked, min(asked + timeout, enough))
        self.waited += self.clock.now - asked
        if self.waited < self.finds_out_after:
            return [], pending
        ready = [pending[i] for at, i in due if at <= self.clock.now][:num_returns]
        return ready, [one for one in pending if one not in ready]

    def waited_enough(self) -> float:
        return self.clock.now + self.finds_out_after - self.waited

    def kill(self, worker: object) -> None:
        self.killed.append(worker)

    def stall(self, seconds: float) -> None:
        self.clock.now += seconds
        self.waited = 0.0


def cluster_on(fake: FakeRay, monkeypatch: pytest.MonkeyPatch) -> RayWorkerPool:
    monkeypatch.setattr(task_router, "get_all", lambda answers: [one.value for one in answers])

    def sleep(seconds: float) -> None:
        fake.clock.now += seconds

    time = SimpleNamespace(monotonic=fake.clock, sleep=sleep)
    for module in (ray_worker_pool, task_router, worker_lifecycle):
        monkeypatch.setattr(module, "time", time)
    for module in (task_router, worker_lifecycle):
        monkeypatch.setattr(module, "ray", fake)
    return RayWorkerPool(
        TrainConfig(batch_size=1),  # whose weights need no process of their own
        lambda: 4,
        play=lambda worker: worker.play,
        start=fake.worker,  # type: ignore[arg-type]
        cpus=lambda: 4,
    )


def with_four_tasks(fake: FakeRay, monkeypatch: pytest.MonkeyPatch) -> RayWorkerPool:
    cluster = cluster_on(fake, monkeypatch)
    while cluster.workers < 4:
        cluster.poll(0.5, HANG)
    cluster.broadcast(0, TrainingState.initial(TrainConfig(hidden_units=4)).policy)
    for episode in range(4):
        cluster.submit(EpisodeTask(episode, 0))
    return cluster


def collect(cluster: RayWorkerPool, hang: float, looks: int) -> list[EpisodeDone]:
    """What comes back in so many looks, if no more than that happens."""
    events = [event for _ in range(looks) for event in cluster.poll(0.5, hang)]
    assert all(isinstance(event, EpisodeDone) for event in events), events
    return [event for event in events if isinstance(event, EpisodeDone)]


@pytest.mark.parametrize("stall", [1.1, 4.0, 600.0])
@pytest.mark.parametrize("hang", [1.0, 60.0])
def test_answers_that_lie_ready_are_taken_in_before_anyone_is_judged(
    monkeypatch: pytest.MonkeyPatch, stall: float, hang: float
) -> None:
    fake = FakeRay(Clock())
    cluster = with_four_tasks(fake, monkeypatch)
    fake.stall(stall * hang)
    finished = collect(cluster, hang, looks=4)
    assert [event.task.episode for event in finished] == [0, 1, 2, 3]
    assert not fake.killed
    # Nor is it held against the next ones that these took so long.
    assert max(event.seconds for event in finished) <= 0.1 + MOST_SECONDS + 2.0


@pytest.mark.parametrize("seconds", [0.9, 30.0])
def test_workers_that_stood_still_too_have_their_time(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Ctrl-Z stops all processes of the terminal: the games take longer by as much."""
    fake = FakeRay(Clock(), seconds=600.0 + seconds)
    cluster = with_four_tasks(fake, monkeypatch)
    fake.stall(600.0)
    assert len(collect(cluster, 60.0, looks=70)) == 4
    assert not fake.killed


def test_ray_may_need_a_moment_to_find_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay(Clock(), finds_out_after=0.4)
    cluster = with_four_tasks(fake, monkeypatch)
    for _ in range(3):
        fake.stall(600.0)
        cluster.poll(0.0, 0.1)
    assert not fake.killed


def test_a_worker_that_hangs_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay(Clock(), seconds=math.inf)
    cluster = with_four_tasks(fake, monkeypatch)
    fake.stall(600.0)
    begin = fake.clock.now
    events: list[object] = []
    while not events:
        events += cluster.poll(0.5, HANG)
        assert fake.clock.now < begin + HANG + 2.0
    assert {type(event) for event in events} == {WorkerLost}
    assert len(fake.killed) == 4
    assert fake.clock.now > begin + HANG - MOST_SECONDS - 1.0


def test_workers_that_are_started_have_their_time_as_well(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeRay(Clock(), ready_after=10_000.0)
    cluster = cluster_on(fake, monkeypatch)
    fake.stall(9_990.0)
    while cluster.workers < 4:
        assert cluster.poll(0.5, HANG) == []
        assert fake.clock.now < 10_010.0
    assert not caplog.messages
    assert not fake.killed


def test_the_polled_clock_by_hand() -> None:
    now = Clock()
    polled = PolledClock(now)
    polled.judge_by(8.0)
    now.now = 1.5
    assert polled() == 1.5
    polled.poll()
    now.now = 100.0
    assert polled() == 1.5 + 2.0
    polled.poll()
    now.now = 101.0
    assert polled() == 3.5 + 1.0
    polled.judge_by(1e9)
    now.now = 1000.0
    assert polled() == 3.5 + MOST_SECONDS


SETTINGS = TrainConfig(seed=7, batch_size=2, frame_limit=40, hidden_units=8)
FLAGS = "--seed 7 --batch-size 2 --frame-limit 40 --hidden-units 8"
STALL_SECONDS = 4.0
"""More than twice the 2 s after which a worker counts as hung."""


@pytest.mark.exhaustive
def test_a_real_learner_that_is_stopped_keeps_its_workers(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    # On a busy machine a second worker may be had to play what is slow indeed.
    flags = f"{FLAGS} --num-workers 2 --hang-seconds 2 --backup-after 1000".split()
    command = [*COMMAND, "train", *flags, "--run-dir", str(run)]
    with log.open("w") as file:
        learner = psutil.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        until(lambda: len(_workers(learner)) == 2)
        _wait_for_updates(run, learner)
        workers = _workers(learner)
        for _ in range(2):
            _stop_and_continue([learner])  # kill -STOP, a disk that blocks
            _wait_for_updates(run, learner)
        _stop_and_continue([*learner.children(recursive=True), learner])  # Ctrl-Z and fg
        _wait_for_updates(run, learner)
        assert _workers(learner) == workers
        learner.terminate()
        assert learner.wait(DEADLINE) == 0
    finally:
        if learner.is_running():
            for process in [*learner.children(recursive=True), learner]:
                process.kill()
    said = log.read_text()
    assert not re.search("silent|replaced|played again|did not start", said), said
    last = metrics(run)[-1]
    settings = replace(SETTINGS, stop_episodes=last["episodes"])
    undisturbed, *_ = run_without_ray(settings, tmp_path / "other")
    assert last["weights_checksum"] == weights_checksum(undisturbed.policy)


def _workers(learner: psutil.Process) -> set[int]:
    children = learner.children(recursive=True)
    return {child.pid for child in children if "RolloutWorker" in " ".join(child.cmdline())}


def _stop_and_continue(processes: list[psutil.Process]) -> None:
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in processes:
            with suppress(ProcessLookupError):  # Ray's own come and go
                os.kill(process.pid, number)
        if number == signal.SIGSTOP:
            time.sleep(STALL_SECONDS)


def _wait_for_updates(run: Path, learner: psutil.Process) -> None:
    """Wait until so many updates are made that another stall can be told from this one."""

    def made() -> int:
        return len(metrics(run)) if (run / "metrics.jsonl").exists() else 0

    enough, deadline = made() + 20, time.monotonic() + DEADLINE
    while made() < enough:
        assert time.monotonic() < deadline
        assert learner.is_running()
        time.sleep(0.02)
