"""A worker pool simulated in this process, in virtual time, with injected faults."""

import atexit
import functools
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.config import TrainConfig, may_change
from distributed_pg.envs.pong import PongEnv
from distributed_pg.episode import EpisodeStats, rollout
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.training.gradient_sum import summed
from distributed_pg.training.schedule import EpisodeTask
from distributed_pg.training.worker_pool import EpisodeDone, EpisodeFailed, PoolEvent, WorkerLost


def env_of(config: TrainConfig) -> PongEnv:
    """One environment for all runs with these settings: making one takes longer than a game."""
    return _env(tuple(config.env_settings().items()))


@functools.cache
def _env(settings: tuple[tuple[str, Any], ...]) -> PongEnv:
    return PongEnv(**dict(settings))


atexit.register(_env.cache_clear)  # else the emulator's library reports them as leaks at the end

Play = Callable[[EpisodeTask, Policy], tuple[EpisodeStats, Gradient]]


_PLAYED: dict[str, tuple[EpisodeStats, Gradient]] = {}
"""Games of this process by all that they depend on. Most runs of the tests play the same ones."""


def play_for_real(config: TrainConfig) -> Play:
    """A ``play`` function that plays real games with ``config``; each takes one virtual second."""
    env = env_of(config)
    fixed = {name: value for name, value in asdict(config).items() if name not in may_change()}

    def play(task: EpisodeTask, policy: Policy) -> tuple[EpisodeStats, Gradient]:
        game = f"{task.episode} {weights_checksum(policy)} {fixed}"
        if game not in _PLAYED:
            result = rollout(env, policy, config, task.episode)
            for array in fields(Gradient):
                getattr(result.gradient, array.name).flags.writeable = False  # as Ray's are
            _PLAYED[game] = replace(result.stats, seconds=1.0), result.gradient
        return _PLAYED[game]

    return play


@dataclass(frozen=True)
class Faults:
    """Probability of each fault, per episode unless stated otherwise."""

    dies_before: float = 0.0
    dies_during: float = 0.0
    dies_after: float = 0.0
    hangs: float = 0.0
    slow: float = 0.0
    """The episode takes 50 times as long."""
    announced_twice: float = 0.0
    answers_late: float = 0.0
    """The worker is reported lost, but its answer still arrives later."""
    fails: float = 0.0
    """The worker's code raises an exception; at most twice per episode."""
    node_dies: float = 0.0
    """Half of the workers die at once."""
    all_die: float = 0.0
    joins_late: float = 0.0
    """Per worker: it is not there at the start."""


class Clock:
    """A clock of virtual seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class _Worker:
    ready: bool = False
    tasks: deque[tuple[EpisodeTask, Policy]] = field(default_factory=deque)
    """Tasks with the weights to play them with; it plays the first."""
    silent_since: float = 0.0
    life: int = 0
    """Number of times it was replaced; the plans of an earlier life are void."""


class SimulatedWorkerPool:
    """Implements the interface of a worker pool; ``play`` simulates an episode."""

    def __init__(
        self,
        play: Play,
        workers: int,
        faults: Faults = Faults(),
        seed: int = 0,
        clock: Clock | None = None,
        most_versions: int = 1_000,
    ) -> None:
        self._play = play
        self._faults = faults
        self._chance = random.Random(seed)
        self.clock = clock or Clock()
        self._most_versions = most_versions
        self._weights: dict[int, Policy] = {}
        self._plans: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._events: list[PoolEvent] = []
        self._failures: dict[int, int] = {}
        self._workers = [_Worker() for _ in range(workers)]
        for worker in self._workers:
            late = self._happens(faults.joins_late)
            self._start(worker, self._chance.uniform(1, 30) if late else 0.0)
        self.most_weights = 0
        self.faults: list[str] = []
        """Faults sent to the learner, which must report each once."""
        self.poll(0.0, 1e9)

    @property
    def workers(self) -> int:
        return sum(worker.ready for worker in self._workers)

    @property
    def idle(self) -> int:
        return sum(worker.ready and not worker.tasks for worker in self._workers)

    def broadcast(self, version: int, policy: Policy) -> None:
        self._weights[version] = policy.copy()
        self.most_weights = max(self.most_weights, len(self._weights))
        assert len(self._weights) <= self._most_versions, "weights pile up"

    def drop_weights(self, before: int) -> None:
        self._weights = {v: policy for v, policy in self._weights.items() if v >= before}

    def can_submit(self, free: int) -> bool:
        return free > 0 and self._next_worker(free) is not None

    def submit(self, task: EpisodeTask) -> None:
        assert task.version in self._weights, "a task for weights that are not there"
        worker = self._next_worker(free=len(self._workers))
        assert worker is not None, "a task, and no room for it"
        worker.tasks.append((task, self._weights[task.version]))
        if len(worker.tasks) == 1:
            worker.silent_since = self.clock.now
            self._begin(worker)

    def poll(self, timeout: float, deadline: float) -> list[PoolEvent]:
        end = self.clock.now + max(timeout, 0.001)  # polling takes a moment
        while not self._events:
            self._replace_hung(deadline)
            if not self._plans or self._plans[0][0] > end:
                self.clock.now = end
                break
            self.clock.now, _, happen = heapq.heappop(self._plans)
            happen()
        self._replace_hung(deadline)
        events, self._events = self._events, []
        for event in events:
            if not isinstance(event, EpisodeDone):
                self.faults.append(event.reason)
        return events

    def _next_worker(self, free: int) -> _Worker | None:
        ready = [worker for worker in self._workers if worker.ready]
        for tasks in (0, 1) if free >= len(ready) else (0,):
            for worker in ready:
                if len(worker.tasks) == tasks:
                    return worker
        return None

    def _begin(self, worker: _Worker) -> None:
        """Start the worker's first task, and plan its outcome."""
        faults, (task, policy) = self._faults, worker.tasks[0]
        stats, gradient = self._played(task, policy)
        seconds = sum(s.seconds for s in stats) * (50.0 if self._happens(faults.slow) else 1.0)
        if self._happens(faults.all_die):
            self._plan(worker, seconds / 2, lambda: self._die(self._workers, "all workers died"))
        elif self._happens(faults.node_dies):
            half = self._workers[: (len(self._workers) + 1) // 2]
            self._plan(worker, seconds / 2, lambda: self._die(half, "the node died"))
        elif self._happens(faults.dies_before):
            self._plan(worker, 0.0, lambda: self._die([worker], "the worker died before"))
        elif self._happens(faults.dies_during):
            part = self._chance.random() * seconds
            self._plan(worker, part, lambda: self._die([worker], "the worker died meanwhile"))
        elif self._happens(faults.hangs):
            pass
        elif self._happens(faults.answers_late):
            late = EpisodeDone(task, stats, gradient, seconds)
            self._plan(worker, seconds / 2, lambda: self._die([worker], "the line broke"))
            self._plan(None, 3 * seconds, lambda: self._events.append(late))
        elif self._may_fail(task.episode) and self._happens(faults.fails):
            self._failures[task.episode] = self._failures.get(task.episode, 0) + 1
            self._plan(worker, seconds / 2, lambda: self._fail(worker))
        else:
            done = EpisodeDone(task, stats, gradient, seconds)
            self._plan(worker, seconds, lambda: self._finish(worker, done))

    def _played(self, task: EpisodeTask, policy: Policy) -> tuple[list[EpisodeStats], Gradient]:
        episodes = range(task.episode, task.episode + task.episodes)
        played = [self._play(EpisodeTask(e, task.version), policy) for e in episodes]
        return [stats for stats, _ in played], summed(gradient for _, gradient in played)

    def _finish(self, worker: _Worker, event: EpisodeDone) -> None:
        self._answer(worker, event)
        if self._happens(self._faults.announced_twice):
            self._plan(None, self._chance.uniform(0, 5), lambda: self._events.append(event))
        if self._happens(self._faults.dies_after):
            self._die([worker], "the worker died after")

    def _fail(self, worker: _Worker) -> None:
        self._answer(worker, EpisodeFailed(worker.tasks[0][0], "ValueError: no", "Traceback"))

    def _answer(self, worker: _Worker, event: PoolEvent) -> None:
        worker.tasks.popleft()
        worker.silent_since = self.clock.now
        self._events.append(event)
        if worker.tasks:
            self._begin(worker)

    def _die(self, workers: list[_Worker], reason: str) -> None:
        for worker in workers:
            if worker.ready:
                for task, _ in worker.tasks:
                    self._events.append(WorkerLost(task, reason))
                worker.tasks.clear()
                worker.ready = False
                worker.life += 1
                self._start(worker, self._chance.uniform(0.1, 20.0))

    def _start(self, worker: _Worker, seconds: float) -> None:
        def become_ready() -> None:
            worker.ready = True

        self._plan(worker, seconds, become_ready)

    def _replace_hung(self, deadline: float) -> None:
        for worker in self._workers:
            if worker.tasks and self.clock.now - worker.silent_since > deadline:
                self._die([worker], "the worker hung")

    def _plan(self, worker: _Worker | None, seconds: float, act: Callable[[], None]) -> None:
        """Call ``act`` after ``seconds``, unless the worker has been replaced by then."""
        life = worker.life if worker else 0

        def happen() -> None:
            if worker is None or worker.life == life:
                act()

        heapq.heappush(self._plans, (self.clock.now + seconds, next(self._order), happen))

    def _may_fail(self, episode: int) -> bool:
        return self._failures.get(episode, 0) < 2

    def _happens(self, probability: float) -> bool:
        return probability > 0.0 and self._chance.random() < probability
