"""The learner: sums gradients in order, updates the weights and broadcasts them."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import WINDOW, Progress, TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.episode import EpisodeStats
from distributed_pg.errors import RunError
from distributed_pg.monitoring.reporter import Callback, Reporter
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.checkpoint_writer import CheckpointWriter
from distributed_pg.storage.metrics import UpdateRecord
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.system_info import peak_memory
from distributed_pg.training.annealing import optimizer_after, sharpening
from distributed_pg.training.dispatcher import Dispatcher
from distributed_pg.training.schedule import Schedule
from distributed_pg.training.worker_pool import EpisodeDone, WorkerPool

_LOG = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Longest wait for workers before the learner checks again whether to stop."""
_TOGETHER = 16
"""Maximum number of gradients added before the workers are served again."""
_RATE_UPDATES = 25


class Learner:
    """Trains a policy on episodes from a pool of workers.

    Args:
        config: the run's settings.
        state: the state to start from.
        pool: the workers.
        run_dir: the folder for metrics and checkpoints.
        reporter: receives every update.
        saved: the checkpoint that already holds ``state``.
        clock: returns seconds, like :func:`time.monotonic`.
        callbacks: called after every update; each may stop the run.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: TrainingState,
        pool: WorkerPool,
        run_dir: RunDir,
        reporter: Reporter,
        saved: Path,
        clock: Callable[[], float] = time.monotonic,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self._config = config
        self._state = state
        self._pool = pool
        self._reporter = reporter
        self._gradient = state.policy.zeros_like()
        self._schedule = Schedule(
            config.batch_size,
            config.policy_lag,
            state.progress.update,
            _last_update(config),
            config.episodes_per_task,
        )
        self._dispatcher = Dispatcher(
            self._schedule,
            pool,
            backup_after=config.backup_after,
            hang_seconds=config.hang_seconds,
            clock=clock,
        )
        self._callbacks = callbacks
        self._ended_by_callback = False
        self._warned_of_idle_workers = False
        self._finished: dict[int, EpisodeDone] = {}
        self._batch: list[EpisodeStats] = []
        self._update_seconds = 0.0
        self._wall_before = state.progress.wall_seconds
        self._clock = clock
        self._begin = clock()
        self._rate_from = deque([state.progress], maxlen=_RATE_UPDATES)
        self._writer = CheckpointWriter(run_dir, config, state.progress.update, saved)

    @property
    def state(self) -> TrainingState:
        """The state after the last update."""
        return self._state

    def run(self, stop_asked: Callable[[], bool]) -> bool:
        """Train until a stop condition, a callback or ``stop_asked`` ends the run.

        Args:
            stop_asked: polled at least once every :data:`POLL_SECONDS` while waiting for workers.

        Returns:
            False if ``stop_asked`` ended the run.

        Raises:
            RunError: an episode failed too often, or the gradient or weights are not finite.
        """
        for version, policy in self._state.policies.items():
            self._pool.broadcast(version, policy)
        while not self._stop_reached():
            if stop_asked():
                return False
            self._dispatcher.hand_out()
            idle = not self._schedule.next_to_sum(1)
            for event in self._dispatcher.collect(POLL_SECONDS if idle else 0.0):
                self._finished[event.task.episode] = event
            # Workers get their next tasks before the learner sums gradients.
            self._dispatcher.hand_out()
            begin = self._clock()
            self._sum()
            self._update_seconds += self._clock() - begin
            if self._schedule.batch_complete:
                self._update()
        return True

    def save(self) -> Path:
        """Make sure the state after the last update is saved; return its checkpoint."""
        return self._writer.finish(self._state)

    def wait(self) -> None:
        """Wait for a checkpoint that is being written."""
        self._writer.wait()

    def _sum(self) -> None:
        """Add the next gradients in order, up to :data:`_TOGETHER`."""
        for episode in self._schedule.next_to_sum(_TOGETHER):
            finished = self._finished.pop(episode)
            finished.gradient.add_to(self._gradient)
            self._batch.extend(finished.stats)
            self._schedule.mark_summed(episode)

    def _update(self) -> None:
        """Apply the summed gradient; broadcast and record the next version of the weights."""
        begin, state = self._clock(), self._state
        gradient_norm = self._finite_norm("gradient", self._gradient)
        policy, cache = state.policy.copy(), state.cache.copy()
        rewards = [stats.reward for stats in self._batch]
        frames = sum(stats.frames for stats in self._batch)
        progress = state.progress.after_update(rewards, frames, self._wall_seconds())
        optimizer = optimizer_after(self._config, state.progress)
        optimizer.step(policy, cache, self._gradient)
        logit_weights = policy.w2[:, :-1]
        logit_weights *= sharpening(self._config, state.progress, progress)
        weights_norm = self._finite_norm("weights", policy)
        batch = self._batch.copy()
        self._schedule.advance()
        oldest = self._schedule.oldest_version
        policies = {v: p for v, p in state.policies.items() if v >= oldest}
        after = TrainingState({**policies, progress.update: policy}, cache, progress)

        self._batch.clear()
        for array in self._gradient.arrays:
            array.fill(0.0)
        self._pool.broadcast(progress.update, policy)
        update_seconds = self._update_seconds + self._clock() - begin
        self._update_seconds = 0.0
        self._pool.drop_weights(before=oldest)
        # Workers waiting for this update continue before anything is hashed or written.
        self._dispatcher.hand_out()
        record = self._record(
            after, batch, optimizer.learning_rate, gradient_norm, weights_norm, update_seconds
        )
        # This single assignment commits the update. Whatever ends the run, even an interrupt at
        # any line, leaves a complete state to save, with its line in the metrics.
        self._state = after
        self._writer.updated(after)
        self._warn_of_idle_workers()
        for callback in self._callbacks:
            self._ended_by_callback |= callback(record) is True

    def _finite_norm(self, name: str, parameters: Policy) -> float:
        length = math.sqrt(sum(float(np.vdot(array, array)) for array in parameters.arrays))
        if not math.isfinite(length):
            raise RunError(
                f"the {name} of update {self._state.progress.update + 1} cannot be used: not all "
                "numbers are finite. The last good state is saved; a lower learning_rate may help"
            )
        return length

    def _warn_of_idle_workers(self) -> None:
        """Warn once if there are more workers than the batch size and lag can keep busy."""
        config, workers = self._config, self._pool.workers
        if self._warned_of_idle_workers or workers <= config.useful_workers:
            return
        self._warned_of_idle_workers = True
        _LOG.warning(
            f"{workers} workers, but at most {config.tasks_at_a_time} can play at a time "
            "(batch_size / episodes_per_task x (policy_lag + 1)): some will wait; "
            "distributed-pg sweep has work for all, and so has a new run with a larger batch or "
            "lag, which takes more episodes"
        )

    def _wall_seconds(self) -> float:
        return self._wall_before + self._clock() - self._begin

    def _stop_reached(self) -> bool:
        return self._ended_by_callback or stop_reached(
            self._config, self._state.progress, self._wall_seconds()
        )

    def _record(
        self,
        state: TrainingState,
        batch: list[EpisodeStats],
        learning_rate: float,
        gradient_norm: float,
        weights_norm: float,
        update_seconds: float,
    ) -> UpdateRecord:
        progress = state.progress
        record = UpdateRecord.from_batch(
            batch,
            progress,
            self._rate_from[0],
            workers=self._pool.workers,
            learner_memory=peak_memory(),
            learning_rate=learning_rate,
            gradient_norm=gradient_norm,
            weights_norm=weights_norm,
            policy_lag=min(progress.update - 1, self._config.policy_lag),
            update_seconds=round(update_seconds, 6),
            weights_checksum=weights_checksum(state.policy),
        )
        self._rate_from.append(progress)
        self._writer.record(record)
        self._reporter.updated(record)
        return record


def stop_reached(config: TrainConfig, progress: Progress, wall_seconds: float) -> bool:
    """Whether a stop condition holds.

    Args:
        config: the run's settings.
        progress: the run's progress after its last update.
        wall_seconds: seconds of training so far.
    """
    if config.stop_episodes is not None and progress.episodes >= config.stop_episodes:
        return True
    if config.stop_frames is not None and progress.frames >= config.stop_frames:
        return True
    if config.stop_plateau is not None and progress.episodes_since_peak >= config.stop_plateau:
        return True
    if config.stop_minutes is not None and wall_seconds >= 60 * config.stop_minutes:
        return True
    return (
        config.stop_reward is not None
        and progress.mean_100 is not None
        and progress.episodes >= WINDOW
        and progress.mean_100 >= config.stop_reward
    )


def _last_update(config: TrainConfig) -> int | None:
    if config.stop_episodes is None:
        return None
    return math.ceil(config.stop_episodes / config.batch_size)
