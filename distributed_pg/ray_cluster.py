"""The cluster as Ray provides it: actors that play, an object store that holds."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from distributed_pg.cluster import Finished, GradientLostError, Lost
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError
from distributed_pg.kernels import kernel_environment
from distributed_pg.policy import Gradient, Policy
from distributed_pg.rollout import EpisodeStats
from distributed_pg.schedule import Ticket
from distributed_pg.versions import changed_versions
from distributed_pg.worker import RolloutWorker, WorkerInfo

Worker = ActorHandle[Any]
Submit = Callable[[Worker, Ticket, ray.ObjectRef[Any]], list[ray.ObjectRef[Any]]]
"""Send a ticket and a reference to the weights to a worker; returns the references to the
EpisodeStats and, where there is one, the Gradient."""

RETRY_SECONDS = 1.0


def play(worker: Worker, ticket: Ticket, weights: ray.ObjectRef[Any]) -> list[ray.ObjectRef[Any]]:
    """The :data:`Submit` of training."""
    references: list[ray.ObjectRef[Any]] = worker.play.remote(ticket, weights)
    return references


@dataclass(frozen=True, slots=True)
class _Call:
    """A call to a worker that has not returned. Without a ticket: is it ready?"""

    worker: Worker
    ticket: Ticket | None = None
    gradient: ray.ObjectRef[Any] | None = None


class RayCluster:
    """A :class:`distributed_pg.cluster.Cluster` of Ray actors.

    Ray restarts a worker that died, without limit. Its ticket is reported lost, and it gets the
    next one when it has said that it is ready again.

    Args:
        config: the run's settings, sent to every worker.
        num_workers: how many to start.
        submit: what a worker does with a ticket.
        message: called with one line whenever something is worth telling the user.
    """

    def __init__(
        self,
        config: TrainConfig,
        num_workers: int,
        submit: Submit = play,
        message: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._submit = submit
        self._message = message
        self._idle: deque[Worker] = deque()
        self._calls: dict[ray.ObjectRef[Any], _Call] = {}
        self._unreachable: list[tuple[float, Worker]] = []
        self._weights: dict[int, ray.ObjectRef[Any]] = {}
        self._gradients: dict[int, ray.ObjectRef[Any]] = {}
        for _ in range(num_workers):
            self._ask_if_ready(_start_worker(config))

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
        calls, self._calls = self._calls, {}
        busy = (call.worker for call in calls.values())
        unreachable = (worker for _, worker in self._unreachable)
        for worker in (*self._idle, *busy, *unreachable):
            ray.kill(worker)
        self._weights.clear()
        self._gradients.clear()

    @property
    def workers(self) -> int:
        """Workers that can play now."""
        return len(self._idle) + sum(call.ticket is not None for call in self._calls.values())

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
        self._ask_unreachable()
        pending = list(self._calls)
        if not pending:
            time.sleep(timeout)
            return []
        ready, _ = ray.wait(pending, num_returns=1, timeout=timeout)
        if ready:
            ready, _ = ray.wait(pending, num_returns=len(pending), timeout=0)
        events = [self._collect(reference) for reference in ready]
        return [event for event in events if event is not None]

    def fetch(self, episode: int) -> Gradient:
        """Take the gradient of a finished episode out of the object store."""
        try:
            gradient: Gradient = ray.get(self._gradients.pop(episode))
        except RayError as error:
            raise GradientLostError(_reason(error)) from error
        return gradient

    def discard(self, episode: int) -> None:
        """Free the gradient of a finished episode that nobody needs."""
        self._gradients.pop(episode, None)

    def _collect(self, reference: ray.ObjectRef[Any]) -> Finished | Lost | None:
        call = self._calls.pop(reference)
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            raise _failure(error, call.ticket) from error
        except RayError as error:
            return self._worker_lost(call, error)
        self._idle.append(call.worker)
        if call.ticket is None:
            self._check_versions(answer)
            return None
        stats: EpisodeStats = answer
        if call.gradient is not None:
            self._gradients[call.ticket.episode] = call.gradient
        return Finished(call.ticket, stats)

    def _worker_lost(self, call: _Call, error: RayError) -> Lost | None:
        if isinstance(error, ActorDiedError):  # for good: Ray will not restart this one
            self._ask_if_ready(_start_worker(self._config))
        elif call.ticket is None:
            self._unreachable.append((time.monotonic() + RETRY_SECONDS, call.worker))
        else:
            self._ask_if_ready(call.worker)
        return None if call.ticket is None else Lost(call.ticket, _reason(error))

    def _ask_if_ready(self, worker: Worker) -> None:
        self._calls[worker.prepare.remote()] = _Call(worker)

    def _ask_unreachable(self) -> None:
        now = time.monotonic()
        due = [worker for when, worker in self._unreachable if when <= now]
        self._unreachable = [entry for entry in self._unreachable if entry[0] > now]
        for worker in due:
            self._ask_if_ready(worker)

    def _check_versions(self, info: WorkerInfo) -> None:
        for change in changed_versions(info.versions):
            self._message(f"on a worker {change}: the run may not have the same bits again")


def _start_worker(config: TrainConfig) -> Worker:
    """A worker with a CPU of its own, held to the kernels that give the same bits everywhere."""
    options = {"num_cpus": 1, "max_restarts": -1}
    environment = {"env_vars": kernel_environment()}
    actor = ray.remote(RolloutWorker).options(**options, runtime_env=environment)
    return cast("Worker", actor.remote(config))


def _reason(error: RayError) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def _failure(error: RayTaskError, ticket: Ticket | None) -> RunError:
    """An exception in the worker's code, as the run's own error."""
    cause = error.cause
    if isinstance(cause, RunError):
        return cause
    what = "a worker" if ticket is None else f"episode {ticket.episode} (version {ticket.version})"
    return RunError(f"{what} failed: {type(cause).__name__}: {cause}")
