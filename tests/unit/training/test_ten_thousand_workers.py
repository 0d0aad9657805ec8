"""The dispatcher and the schedule with ten thousand workers, in virtual time."""

import heapq
import random
import sys
from collections import Counter, deque
from types import FrameType
from typing import Any

import pytest
from simulated_pool import Clock

from distributed_pg.algo.policy import Policy
from distributed_pg.episode import EpisodeStats
from distributed_pg.system_info import PACKAGE
from distributed_pg.training.dispatcher import Dispatcher
from distributed_pg.training.schedule import EpisodeTask, Schedule
from distributed_pg.training.worker_pool import EpisodeDone, PoolEvent, WorkerLost

STATS = EpisodeStats(0.0, 10, 40, 1.0, 1.0, 0, 0, 0.0)
UPDATES = 3


class ManyWorkers:
    """Workers that take about a second for a task; nothing here looks at each of them."""

    def __init__(self, workers: int, clock: Clock) -> None:
        self.workers = workers
        self.clock = clock
        self.chance = random.Random(0)
        self.unoccupied = deque(range(workers))
        self.playing: list[tuple[float, int, EpisodeTask]] = []
        self.queued: deque[EpisodeTask] = deque()
        self.events: list[PoolEvent] = []
        self.times_played: Counter[int] = Counter()

    @property
    def idle(self) -> int:
        return len(self.unoccupied)

    def broadcast(self, version: int, policy: Policy) -> None: ...

    def drop_weights(self, before: int) -> None: ...

    def can_submit(self, free: int) -> bool:
        may_queue = free >= self.workers and len(self.queued) < self.workers
        return free > 0 and (self.idle > 0 or may_queue)

    def submit(self, task: EpisodeTask) -> None:
        self.queued.append(task)
        self._begin()

    def _begin(self) -> None:
        if self.queued and self.unoccupied:
            end = self.clock.now + self.chance.lognormvariate(0.0, 0.3)
            item = (end, self.unoccupied.popleft(), self.queued.popleft())
            heapq.heappush(self.playing, item)

    def poll(self, timeout: float, deadline: float) -> list[PoolEvent]:
        if self.playing and not self.events:
            self.clock.now, worker, task = heapq.heappop(self.playing)
            self.unoccupied.append(worker)
            self.times_played[task.episode] += 1
            self.events.append(EpisodeDone(task, [STATS] * task.episodes, None, 1.0))
            self._begin()
        events, self.events = self.events, []
        return events

    def lose_half(self) -> None:
        """Half of the workers are gone, and others come in their place."""
        gone, self.playing = self.playing[::2], self.playing[1::2]
        heapq.heapify(self.playing)
        for _, worker, task in gone:
            self.events.append(WorkerLost(task, "the nodes are gone"))
            self.unoccupied.append(worker)


def train(workers: int, episodes_per_task: int, losses: int) -> ManyWorkers:
    """Hand out and collect the tasks of some updates, as the learner does."""
    clock = Clock()
    pool = ManyWorkers(workers, clock)
    batch = workers * episodes_per_task
    schedule = Schedule(batch, 1, last_update=UPDATES, episodes_per_task=episodes_per_task)
    dispatcher = Dispatcher(schedule, pool, backup_after=4.0, hang_seconds=60.0, clock=clock)
    collected = 0
    while schedule.update < UPDATES:
        dispatcher.hand_out()
        collected += len(dispatcher.collect(0.5))
        if losses and collected > workers // 2:
            losses -= 1
            pool.lose_half()
        for task in schedule.next_to_sum(4):
            schedule.mark_summed(task)
        if schedule.batch_complete:
            schedule.advance()
    return pool


@pytest.mark.parametrize(("episodes_per_task", "losses"), [(1, 0), (8, 0), (8, 2)])
def test_each_task_is_collected_once_and_none_waits_for_the_crowd(
    episodes_per_task: int, losses: int, told: list[str]
) -> None:
    pool = train(10_000, episodes_per_task, losses)
    tasks = range(0, UPDATES * 10_000 * episodes_per_task, episodes_per_task)
    assert set(pool.times_played) >= set(tasks)
    again = sum(pool.times_played.values()) - len(tasks)
    assert again <= len(told)  # a task that a second worker plays is told
    assert len([line for line in told if "the nodes are gone" in line]) == 5_000 * losses
    # Three batches of a task each take three tasks' time, and a little for the slowest.
    assert pool.clock.now < 12.0 + 4.0 * losses


def test_the_work_for_a_task_does_not_grow_with_the_workers() -> None:
    assert calls_per_task(10_000) < 1.1 * calls_per_task(100)


def calls_per_task(workers: int) -> float:
    """Calls of the package's functions, per task."""
    calls = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE))

    sys.setprofile(count)
    try:
        train(workers, 1, 0)
    finally:
        sys.setprofile(None)
    return calls / (UPDATES * workers)
