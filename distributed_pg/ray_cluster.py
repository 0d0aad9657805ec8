"""The cluster as Ray provides it: actors that play, an object store that holds."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from distributed_pg.cluster import Finished, GradientLostError, Lost
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, one_line
from distributed_pg.kernels import kernel_environment
from distributed_pg.policy import Gradient, Policy
from distributed_pg.ray_session import cluster_cpus
from distributed_pg.rollout import EpisodeStats
from distributed_pg.schedule import Ticket
from distributed_pg.versions import changed_versions
from distributed_pg.worker import RolloutWorker, WorkerInfo

Worker: TypeAlias = ActorHandle[Any]
Reference: TypeAlias = ray.ObjectRef[Any]
Submit: TypeAlias = Callable[[Worker, Ticket, Reference], list[Reference]]
"""Send a ticket and a reference to the weights to a worker; returns the references to the
EpisodeStats and, where there is one, the Gradient."""

RETRY_SECONDS = 1.0
"""How long to wait before a worker that did not start is tried again."""
START_ATTEMPTS = 5
"""Failed starts in a row, while no worker can play, after which the run gives up."""
PATIENCE_SECONDS = 30.0
"""How long no worker may be ready before the user is told."""


def play(worker: Worker, ticket: Ticket, weights: Reference) -> list[Reference]:
    """The :data:`Submit` of training."""
    # Two return values, so that the gradient stays in the store while its statistics travel.
    return cast("list[Reference]", worker.play.options(num_returns=2).remote(ticket, weights))


def start_worker(config: TrainConfig) -> Worker:
    """A worker with a CPU of its own, held to kernels that give the same bits everywhere."""
    options = {"num_cpus": 1, "max_restarts": -1}
    environment = {"env_vars": kernel_environment()}
    actor = ray.remote(RolloutWorker).options(**options, runtime_env=environment)
    return cast("Worker", actor.remote(config))


@dataclass(frozen=True, slots=True)
class _Call:
    """A call to a worker that has not returned. Without a ticket: is it ready?"""

    worker: Worker
    ticket: Ticket | None = None
    gradient: Reference | None = None


class RayCluster:
    """A :class:`distributed_pg.cluster.Cluster` of Ray actors.

    Ray restarts a worker that died, without limit. Its ticket is reported lost, and it gets the
    next one when it has said that it is ready again.

    Args:
        config: the run's settings, sent to every worker.
        num_workers: how many to start.
        submit: what a worker does with a ticket.
        message: called with one line whenever something is worth telling the user.
        start: makes a worker.
    """

    def __init__(
        self,
        config: TrainConfig,
        num_workers: int,
        submit: Submit = play,
        message: Callable[[str], None] = lambda _: None,
        start: Callable[[TrainConfig], Worker] = start_worker,
    ) -> None:
        self._config = config
        self._submit = submit
        self._message = message
        self._start = start
        self._idle: deque[Worker] = deque()
        self._calls: dict[Reference, _Call] = {}
        self._weights: dict[int, Reference] = {}
        self._retries: deque[tuple[float, Worker]] = deque()
        self._failed_starts = 0
        self._told_versions: set[str] = set()
        self._none_ready_since = time.monotonic()
        self._told_none_ready = False
        for _ in range(num_workers):
            self._ask_if_ready(self._start(config))

    def __enter__(self) -> "RayCluster":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the workers and free what they hold."""
        busy = [call.worker for call in self._calls.values()]
        for worker in {*self._idle, *busy, *(worker for _, worker in self._retries)}:
            with suppress(RayError):  # Ray itself is gone, and its workers with it
                ray.kill(worker)
        self._calls.clear()
        self._weights.clear()

    @property
    def workers(self) -> int:
        """Workers that can play now."""
        return len(self._idle) + sum(call.ticket is not None for call in self._calls.values())

    @property
    def starting(self) -> bool:
        """Whether a worker has not said yet that it is ready."""
        return bool(self._retries) or any(call.ticket is None for call in self._calls.values())

    def publish(self, version: int, policy: Policy) -> None:
        """Copy the weights to the object store, where workers read them without a copy."""
        self._weights[version] = ray.put(policy)

    def retire(self, before: int) -> None:
        """Free the weights of the versions below ``before``."""
        for version in [v for v in self._weights if v < before]:
            del self._weights[version]

    def has_idle(self) -> bool:
        """Whether a worker is waiting for a ticket."""
        return bool(self._idle)

    def give(self, ticket: Ticket) -> None:
        """Have the worker that waited longest play the ticket."""
        worker = self._idle.popleft()
        stats, *gradient = self._submit(worker, ticket, self._weights[ticket.version])
        self._calls[stats] = _Call(worker, ticket, *gradient)

    def wait(self, timeout: float) -> list[Finished | Lost]:
        """What happened since the last call; see :meth:`distributed_pg.cluster.Cluster.wait`."""
        self._retry_starts()
        self._tell_if_none_is_ready()
        pending = list(self._calls)
        if not pending:
            time.sleep(timeout)
            return []
        ready, _ = ray.wait(pending, num_returns=1, timeout=timeout)
        if ready:
            ready, _ = ray.wait(pending, num_returns=len(pending), timeout=0)
        events = [self._collect(self._calls.pop(reference), reference) for reference in ready]
        return [event for event in events if event is not None]

    def fetch(self, gradient: Reference) -> Gradient:
        """Bring the gradient of a finished episode from the object store."""
        try:
            return cast("Gradient", ray.get(gradient))
        except RayError as error:
            raise GradientLostError(_reason(error)) from error

    def _collect(self, call: _Call, reference: Reference) -> Finished | Lost | None:
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            if not isinstance(error.cause, RayError):
                raise _failure(error, call.ticket) from error
            # The worker could not get the weights: its node or the store is in trouble, not it.
            return self._lost(call, error.cause)
        except RayError as error:
            return self._lost(call, error)
        self._idle.append(call.worker)
        if call.ticket is None:
            self._worker_ready(answer)
            return None
        stats: EpisodeStats = answer
        return Finished(call.ticket, stats, call.gradient)

    def _lost(self, call: _Call, error: RayError) -> Lost | None:
        worker = self._start(self._config) if isinstance(error, ActorDiedError) else call.worker
        if call.ticket is not None:
            self._ask_if_ready(worker)
            return Lost(call.ticket, _reason(error))
        self._failed_starts += 1
        if self._failed_starts >= START_ATTEMPTS and self.workers == 0:
            raise RunError(f"no worker can be started: {_reason(error)}") from error
        self._message(f"a worker did not start and is tried again ({_reason(error)})")
        self._retries.append((time.monotonic() + RETRY_SECONDS, worker))
        return None

    def _worker_ready(self, info: WorkerInfo) -> None:
        self._failed_starts = 0
        for change in changed_versions(info.versions):
            if change not in self._told_versions:
                self._told_versions.add(change)
                self._message(f"on a worker {change}: the run may not have the same bits again")

    def _ask_if_ready(self, worker: Worker) -> None:
        self._calls[worker.prepare.remote()] = _Call(worker)

    def _retry_starts(self) -> None:
        while self._retries and self._retries[0][0] <= time.monotonic():
            self._ask_if_ready(self._retries.popleft()[1])

    def _tell_if_none_is_ready(self) -> None:
        now = time.monotonic()
        if self.workers > 0:
            self._none_ready_since, self._told_none_ready = now, False
        elif now - self._none_ready_since > PATIENCE_SECONDS and not self._told_none_ready:
            self._told_none_ready = True
            self._message(
                f"no worker has been ready for {PATIENCE_SECONDS:.0f} s; each needs a CPU of its "
                f"own, and the cluster has {cluster_cpus()}"
            )


def _reason(error: RayError) -> str:
    return f"{type(error).__name__}: {one_line(str(error).strip().partition('.')[0])}"


def _failure(error: RayTaskError, ticket: Ticket | None) -> RunError:
    """An exception in the worker's code, as the run's own error."""
    cause = error.cause
    if isinstance(cause, RunError):
        return cause
    what = "a worker" if ticket is None else f"episode {ticket.episode} (version {ticket.version})"
    return RunError(f"{what} failed: {type(cause).__name__}: {one_line(cause)}")
