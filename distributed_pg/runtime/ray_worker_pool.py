"""The cluster as Ray provides it: actors that play, an object store for the weights."""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from distributed_pg.algo.policy import Policy
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, one_line, plain
from distributed_pg.runtime.actor import (
    TICKETS,
    Reference,
    Submit,
    Worker,
    get_all,
    play,
    start_worker,
)
from distributed_pg.runtime.causes import reason_of
from distributed_pg.runtime.health import cluster_cpus
from distributed_pg.system_info import changed_versions, own_code
from distributed_pg.training.polled_clock import PolledClock
from distributed_pg.training.rollout_worker import WorkerInfo
from distributed_pg.training.schedule import EpisodeTask
from distributed_pg.training.worker_pool import EpisodeDone, EpisodeFailed, PoolEvent, WorkerLost

_LOG = logging.getLogger(__name__)

START_SECONDS = 120.0
"""How long a worker may take to start, at least, before another is started in its place."""
RETRY_SECONDS = 1.0
"""How long to wait before a worker that did not start is tried again."""
UNREACHABLE_ATTEMPTS = 3
"""Failed calls in a row after which a worker that cannot be reached is replaced."""
START_ATTEMPTS = 5
"""Failed starts in a row after which the run gives up, if no worker can play."""
PATIENCE_SECONDS = 30.0
"""How long no worker may be ready before the user is told."""
RESIZE_SECONDS = 1.0
"""How often to see whether there should be more workers, or fewer."""
_LOOK_SECONDS = 0.5
"""How often to look for workers that are silent."""


@dataclass(eq=False, slots=True)
class _Member:
    """A worker of the cluster."""

    worker: Worker
    submit: Submit
    ready: bool = False
    """Whether it has said that it can play, and was not lost since."""
    tasks: int = 0
    """Tickets it was given that have not come back; it plays the first."""
    silent_since: float = 0.0
    """When it last answered, or was given something to answer to, by the cluster's clock."""
    failed_starts: int = 0
    """How often it could not be reached since it was ready, or made."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call to a worker that has not returned. Without a task: is it ready?"""

    member: _Member
    task: EpisodeTask | None = None


class Check(Protocol):
    """Raises RayLostError where Ray is gone; ``at_once``: looks even if it did just now."""

    def __call__(self, *, at_once: bool = False) -> None:
        """Check."""


def _no_check(*, at_once: bool = False) -> None:
    """For a Ray that somebody else looks after."""


class RayWorkerPool:
    """A :class:`distributed_pg.training.worker_pool.Cluster` of Ray actors.

    A worker may have a second task waiting behind its game, so that it need not wait for the
    learner's answer. Ray restarts a worker that died, without limit. Its tasks are reported lost,
    and it gets the next one when it has said that it is ready again.

    Args:
        config: the run's settings, sent to every worker.
        wanted: says how many workers there should be; asked again from time to time.
        play: how a worker is had to play.
        start: makes a worker.
        check: raises RayLostError where Ray is gone; ``at_once``, before an object is put.
        cpus: how many CPUs there are for workers.
    """

    def __init__(
        self,
        config: TrainConfig,
        wanted: Callable[[], int],
        play: Callable[[Worker], Submit] = play,
        start: Callable[[TrainConfig], Worker] = start_worker,
        check: Check = _no_check,
        cpus: Callable[[], int] = cluster_cpus,
    ) -> None:
        self._config = config
        self._wanted = wanted
        self._play = play
        self._start = start
        self._check = check
        self._cpus = cpus
        self._members: set[_Member] = set()
        self._ready = 0
        # Ready members without a task, and with one; those that are so for longest come first.
        self._idle: OrderedDict[_Member, None] = OrderedDict()
        self._playing: OrderedDict[_Member, None] = OrderedDict()
        self._calls: dict[Reference, _Call] = {}
        self._weights: dict[int, Reference] = {}
        self._retries: deque[tuple[float, _Member]] = deque()
        self._look_for_hung_at = 0.0
        self._failed_starts = 0
        self._told_versions: set[str] = set()
        self._clock = PolledClock(time.monotonic)
        self._none_ready_since = self._clock()
        self._told_none_ready = False
        self._resize_at = 0.0
        self._resize()

    def __enter__(self) -> "RayWorkerPool":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the workers and free what they hold."""
        for member in self._members:
            with suppress(RayError):  # Ray itself is gone, and its workers with it
                ray.kill(member.worker)
        self._calls.clear()
        self._weights.clear()

    @property
    def workers(self) -> int:
        """Workers that can play now."""
        return self._ready

    @property
    def starting(self) -> bool:
        """Whether a worker has not said yet that it is ready."""
        return self._ready < len(self._members)

    def broadcast(self, version: int, policy: Policy) -> None:
        """Copy the weights to the object store, where workers read them without a copy."""
        self._check(at_once=True)  # without a raylet Ray would end this process
        self._weights[version] = ray.put(policy)

    def drop_weights(self, before: int) -> None:
        """Free the weights of the versions below ``before``."""
        for version in [v for v in self._weights if v < before]:
            del self._weights[version]

    @property
    def idle(self) -> int:
        """Workers that have no task."""
        return len(self._idle)

    def can_submit(self, free: int) -> bool:
        """Whether to give out one of ``free`` tasks; see :class:`WorkerPool`."""
        return free > 0 and bool(self._idle or (self._playing and free >= self._ready))

    def submit(self, task: EpisodeTask) -> None:
        """Have the worker play the task that waited longest, or else that played longest."""
        member = next(iter(self._idle or self._playing))
        if member.tasks == 0:
            member.silent_since = self._clock()
        answer = member.submit(task.episode, self._weights[task.version])
        self._calls[answer] = _Call(member, task)
        member.tasks += 1
        self._place(member)

    def poll(self, timeout: float, deadline: float) -> list[PoolEvent]:
        """What happened since the last call, as the interface says."""
        self._check()
        self._retry_starts()
        self._clock.judge_by(deadline)
        pending = list(self._calls)
        # To look costs time for every call there is, so with hundreds of workers it is done only
        # when it pays; with tasks waiting at the workers nobody waits for it.
        events = self._take_in(pending, 1 + len(pending) // 64, timeout)
        # Only now, with the answers taken in, is it known who was silent.
        self._tell_if_none_is_ready()
        return [*events, *self._resize(), *self._replace_hung(deadline)]

    def _take_in(self, pending: list[Reference], most: int, timeout: float) -> list[PoolEvent]:
        """The answers to ``most`` of the calls, or fewer if there are no more in ``timeout``."""
        if pending:
            ready, _ = ray.wait(pending, num_returns=most, timeout=timeout)
        else:
            time.sleep(timeout)
            ready = []
        self._clock.poll()
        calls = [self._calls.pop(reference) for reference in ready]
        answers = zip(calls, get_all(ready), strict=True)
        events = [self._collect(call, answer) for call, answer in answers]
        return [event for event in events if event is not None]

    def _collect(self, call: _Call, answer: Any) -> PoolEvent | None:
        now = self._clock()
        seconds = now - call.member.silent_since
        call.member.silent_since = now
        if isinstance(answer, RayError):
            self._check(at_once=True)  # workers end with their raylet, and are not the news then
        if isinstance(answer, RayTaskError):
            if not isinstance(answer.cause, RayError):
                return self._failed(call, answer)
            # The worker could not get the weights: its node or the store is in trouble, not it.
            answer = answer.cause
        if call.task is None:
            if isinstance(answer, RayError):
                self._try_again(call.member, answer)
            else:
                self._member_ready(call.member, answer)
            return None
        call.member.tasks -= 1
        if isinstance(answer, RayError):
            self._revive(call.member, answer)
            return WorkerLost(call.task, reason_of(answer))
        self._place(call.member)
        stats, gradient = answer
        return EpisodeDone(call.task, stats, gradient, seconds)

    def _failed(self, call: _Call, error: RayTaskError) -> EpisodeFailed:
        """The worker's code raised an exception."""
        if isinstance(error.cause, RunError):
            raise error.cause
        reason = f"{type(error.cause).__name__}: {one_line(error.cause)}"
        if call.task is None:
            raise RunError(f"a worker failed: {reason}") from error
        call.member.tasks -= 1
        self._place(call.member)
        return EpisodeFailed(call.task, reason, plain(error))

    def _resize(self) -> list[PoolEvent]:
        """Have as many workers as there should be.

        Those that are ready stay: where CPUs went, their workers are not ready any more.
        """
        now = time.monotonic()
        if now < self._resize_at:
            return []
        self._resize_at = now + RESIZE_SECONDS
        missing = self._wanted() - len(self._members)
        for _ in range(missing):
            self._ask_if_ready(self._new_member())
        waiting = [member for member in self._members if not member.ready]
        events: list[PoolEvent] = []
        for member in waiting[: max(0, -missing)]:
            events += self._dismiss(member, "its CPU is gone")
        return events

    def _replace_hung(self, deadline: float) -> list[PoolEvent]:
        """Kill the workers that are silent for too long and start others."""
        if time.monotonic() < self._look_for_hung_at:
            return []
        self._look_for_hung_at = time.monotonic() + _LOOK_SECONDS
        suspects = [m for m in self._members if self._is_hung(m, deadline)]
        if not suspects:
            return []
        # Their answers may lie here. After a stall, Ray needs a moment to find them.
        pending = [reference for reference, call in self._calls.items() if call.member in suspects]
        events = self._take_in(pending, len(pending), _LOOK_SECONDS)
        for member in suspects:
            if member in self._members and self._is_hung(member, deadline):
                events += self._replace(member)
        return events

    def _replace(self, member: _Member) -> list[WorkerLost]:
        """Kill a member that is silent and start another."""
        silent = self._clock() - member.silent_since
        if not member.ready:
            _LOG.warning(f"a worker did not start in {silent:.0f} s and is replaced")
        lost = self._dismiss(member, f"its worker was silent for {silent:.0f} s and is replaced")
        self._ask_if_ready(self._new_member())
        return lost

    def _dismiss(self, member: _Member, reason: str) -> list[WorkerLost]:
        """Kill a member and expect nothing of it any more; its tasks are lost."""
        self._withdraw(member)
        self._remove(member)
        calls = {r: call for r, call in self._calls.items() if call.member is member}
        for reference in calls:
            del self._calls[reference]
        return [WorkerLost(call.task, reason) for call in calls.values() if call.task is not None]

    def _is_hung(self, member: _Member, deadline: float) -> bool:
        silent = self._clock() - member.silent_since
        if member.ready:
            return member.tasks > 0 and silent > deadline
        if silent <= max(deadline, START_SECONDS):
            return False
        if self._cpus() < len(self._members):  # it may wait for a CPU
            member.silent_since = self._clock()
            return False
        return True

    def _revive(self, member: _Member, error: RayError) -> None:
        """A member was lost: it plays again when it says that it can."""
        if member.ready:  # else this was its second task
            self._withdraw(member)
            self._ask_if_ready(self._replaced(member, error))

    def _withdraw(self, member: _Member) -> None:
        """Give a member no more tasks."""
        if member.ready:
            member.ready = False
            self._ready -= 1
            self._place(member)

    def _try_again(self, member: _Member, error: RayError) -> None:
        """A member did not start."""
        member.failed_starts += 1
        if member.failed_starts == 1:
            _LOG.warning(f"a worker did not start and is tried again ({reason_of(error)})")
        if isinstance(error, ActorDiedError):
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS and self.workers == 0:
                raise RunError(f"no worker can be started: {reason_of(error)}") from error
        elif member.failed_starts >= UNREACHABLE_ATTEMPTS:  # its process may hang
            _LOG.warning("a worker cannot be reached and is replaced")
            self._remove(member)
            member = self._new_member()
        again = time.monotonic() + RETRY_SECONDS
        self._retries.append((again, self._replaced(member, error)))

    def _member_ready(self, member: _Member, info: WorkerInfo) -> None:
        _check_code(info)
        member.ready = True
        member.failed_starts = 0
        self._ready += 1
        self._place(member)
        self._failed_starts = 0
        for change in changed_versions(info.versions):
            if change not in self._told_versions:
                self._told_versions.add(change)
                _LOG.warning(f"on a worker {change}: the run may not have the same bits again")

    def _new_member(self) -> _Member:
        worker = self._start(self._config)
        member = _Member(worker, self._play(worker), silent_since=self._clock())
        self._members.add(member)
        return member

    def _remove(self, member: _Member) -> None:
        ray.kill(member.worker)
        self._members.remove(member)

    def _replaced(self, member: _Member, error: RayError) -> _Member:
        """The member itself, or another one if Ray will not restart it."""
        if not isinstance(error, ActorDiedError):
            return member
        self._members.remove(member)
        return self._new_member()

    def _place(self, member: _Member) -> None:
        """Put a member among the idle or the playing ones, as it is now."""
        self._idle.pop(member, None)
        self._playing.pop(member, None)
        if member.ready and member.tasks == 0:
            self._idle[member] = None
        elif member.ready and member.tasks < TICKETS:
            self._playing[member] = None

    def _ask_if_ready(self, member: _Member) -> None:
        if member.failed_starts == 0:
            member.silent_since = self._clock()
        self._calls[member.worker.prepare.remote()] = _Call(member)

    def _retry_starts(self) -> None:
        while self._retries and self._retries[0][0] <= time.monotonic():
            member = self._retries.popleft()[1]
            if member in self._members:  # it was not replaced meanwhile
                self._ask_if_ready(member)

    def _tell_if_none_is_ready(self) -> None:
        now = self._clock()
        if self.workers > 0:
            self._none_ready_since, self._told_none_ready = now, False
        elif now - self._none_ready_since > PATIENCE_SECONDS and not self._told_none_ready:
            self._told_none_ready = True
            _LOG.warning(
                f"no worker has been ready for {PATIENCE_SECONDS:.0f} s; each needs a CPU of its "
                f"own, and the cluster has {self._cpus()}"
            )


def _check_code(info: WorkerInfo) -> None:
    """Refuse a worker that runs other code than this process, or the run would not be its own."""
    here, there = own_code(), getattr(info, "code", None)  # old code does not say which it is
    if there is None or there.digest != here.digest:
        raise RunError(
            f"a worker runs other code than this process: {there or 'an older distributed_pg'}, "
            f"and here {here}; have the same version there, and no other copy on PYTHONPATH"
        )
