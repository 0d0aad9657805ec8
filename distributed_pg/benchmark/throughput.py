"""Measures training against its limit, the bare emulator, and against common ways to train.

Everything is measured alternately in several rounds of one run: machines are noisy, and a ratio of
numbers taken minutes apart means little. The weights never change (the learning rate is too small
to change the last bit of any weight), so every round plays the same games.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.benchmark.comparisons import (
    Rate,
    classic_rate,
    emulator_rate,
    rollout_rate,
    tutorial_rate,
)
from distributed_pg.benchmark.saturation import Answer, answers, start_waiting, wait_for
from distributed_pg.compiled.loading import is_installed
from distributed_pg.config import STOP_CONDITIONS, TrainConfig
from distributed_pg.determinism import ONE_THREAD, native_kernels
from distributed_pg.envs.pong import PongEnv
from distributed_pg.episode import EpisodeStats, rollout
from distributed_pg.errors import UsageError, counted
from distributed_pg.presets import preset
from distributed_pg.runtime.actor import Worker, start_worker
from distributed_pg.runtime.ray_worker_pool import RayWorkerPool
from distributed_pg.runtime.session import ray_session
from distributed_pg.storage.metrics import UpdateRecord
from distributed_pg.storage.policy_file import load_policy
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.training.learner import Learner
from distributed_pg.training.worker_pool import EpisodeDone, PoolEvent

_FROZEN = 1e-12
"""A learning rate too small to change a float32 weight."""

_PLAYED = 16
"""Distinct episodes that simulated workers return."""

Key = tuple[str, int]
"""Name of what is measured, and the number of workers."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured configuration, over all rounds."""

    name: str
    """training, native (training with all of the CPU's vector instructions), rollout (workers
    without Ray or a learner), numpy (the same without compiled code), emulator (nothing else),
    tutorial or classic."""
    workers: int
    frames_per_second: float
    """Emulated frames per second, median of the rounds."""
    slowest: float
    fastest: float
    """Frames per second of the slowest and the fastest round."""
    episodes_per_hour: float
    """Median of the rounds."""
    of_emulator: float
    """Frames per second relative to the same number of bare emulators, median of the ratios."""
    speedup: float
    """Frames per second relative to one worker, median of the ratios; 1 if not measured."""
    worker_busy: float | None
    """Fraction of the workers' time spent playing, median; None if not measured."""
    gradient_bytes: float | None
    """Mean size of a gradient sent to the learner, bytes; None if not measured."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """How one learner coped with a number of simulated workers."""

    workers: int
    episodes_per_task: int
    """Episodes whose gradients a worker sums before it returns them."""
    episodes_per_second: float
    """Episodes whose gradients were fetched, summed and applied."""
    worker_busy: float
    """Fraction of the time that a worker would have spent playing."""
    episode_seconds: float
    """Mean simulated duration of an episode."""
    gradient_bytes: int
    """Mean size of a gradient, summed over the episodes of a task."""


class _RecordingReporter:
    """A reporter that records the updates."""

    def __init__(self) -> None:
        self.records: list[UpdateRecord] = []

    def updated(self, record: UpdateRecord) -> None:
        """Record the update."""
        self.records.append(record)


def benchmark(
    num_workers: list[int],
    rounds: int,
    seconds: float,
    *,
    native: bool = False,
    checkpoint: str | Path | None = None,
    address: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Measure training and its references alternately, in several rounds.

    Args:
        num_workers: worker counts to measure.
        rounds: number of rounds.
        seconds: minimum duration of each measurement.
        native: also measure training with workers that are not restricted to SSE.
        checkpoint: the policy that plays, at its frame skip; None: the initial policy at 4 frames
            per step.
        address: address of a Ray cluster; references without Ray still run on this machine.
        progress: called with a description of each measurement.

    Returns:
        A row for each measured configuration and number of workers.

    Raises:
        UsageError: there is nothing at ``checkpoint``.
        RunError: the checkpoint cannot be read, or no cluster answers at ``address``.
    """
    contestants = _contestants(*_measured_state(checkpoint), num_workers, seconds, native=native)
    rates: dict[Key, list[Rate]] = {key: [] for key in contestants}
    # All processes start with native kernels; only the training workers pin theirs.
    with native_kernels(), ray_session(address, max(num_workers)):
        for number in range(rounds):
            for (name, n), measure in contestants.items():
                progress(f"round {number + 1} of {rounds}: {name} with {n}")
                rates[name, n].append(measure())
    return [_row(key, rates) for key in rates]


def _contestants(
    config: TrainConfig,
    state: TrainingState,
    num_workers: list[int],
    seconds: float,
    *,
    native: bool,
) -> dict[Key, Callable[[], Rate]]:
    """The measurement for each key."""
    largest, contestants = max(num_workers), dict[Key, Callable[[], Rate]]()
    for n in num_workers:
        contestants["emulator", n] = partial(emulator_rate, n, seconds)
        play = partial(rollout_rate, config, state.policy, n, seconds)
        contestants["rollout", n] = play
        if is_installed():
            contestants["numpy", n] = partial(play, compiled=False)
        contestants["training", n] = partial(_train, config, state, n, seconds, start_worker)
        if native:
            start = partial(start_worker, kernels=ONE_THREAD)
            contestants["native", n] = partial(_train, config, state, n, seconds, start)
    game = state.policy, config.frame_skip
    contestants["tutorial", largest] = partial(tutorial_rate, *game, largest, seconds)
    contestants["classic", 1] = partial(classic_rate, *game, seconds)
    return contestants


def simulate(
    workers: list[int],
    episodes_per_task: list[int],
    seconds: float,
    *,
    checkpoint: str | Path | None = None,
    address: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Simulation]:
    """Measure how many workers one learner can serve, with simulated workers.

    A batch has as many tasks as there are workers, so that no worker waits for the schedule.

    Args:
        workers: numbers of simulated workers.
        episodes_per_task: numbers of episodes per task.
        seconds: minimum duration of each measurement.
        checkpoint: the policy whose episodes they simulate; None: the initial policy.
        address: address of a Ray cluster; None: this machine.
        progress: called with a description of each measurement.

    Returns:
        A simulation for each number of episodes per task and of workers.

    Raises:
        UsageError: there is nothing at ``checkpoint``.
        RunError: the checkpoint cannot be read, or no cluster answers at ``address``.
    """
    config, state = _measured_state(checkpoint)
    env = PongEnv(**config.env_settings())
    played = [rollout(env, state.policy, config, episode) for episode in range(_PLAYED)]
    simulations = []
    with ray_session(address, 1):
        for per_task, n in itertools.product(episodes_per_task, workers):
            progress(f"simulating {counted(n, 'worker')}, {counted(per_task, 'episode')} per task")
            recorded = answers(played, per_task)
            start = start_waiting(n, recorded)
            shaped = replace(config, batch_size=n * per_task, episodes_per_task=per_task)
            with RayWorkerPool(shaped, partial(int, n), wait_for, start=start) as pool:
                records = _watch_training(shaped, state, pool, seconds)
            simulations.append(_simulation(n, recorded, _rate(records)))
    return simulations


def _simulation(workers: int, recorded: list[Answer], rate: Rate) -> Simulation:
    episodes = [stats for group, _ in recorded for stats in group]
    episode_seconds = statistics.mean(stats.seconds for stats in episodes)
    per_second = rate.episodes / rate.seconds
    return Simulation(
        workers=workers,
        episodes_per_task=len(episodes) // len(recorded),
        episodes_per_second=per_second,
        worker_busy=per_second * episode_seconds / workers,
        episode_seconds=episode_seconds,
        gradient_bytes=round(statistics.mean(gradient.nbytes for _, gradient in recorded)),
    )


def _measured_state(checkpoint: str | Path | None) -> tuple[TrainConfig, TrainingState]:
    """The settings and weights that are measured."""
    config = preset("karpathy")  # 4 frames per step, like the classic script
    state = TrainingState.initial(config)
    if checkpoint is not None:
        loaded = load_policy(checkpoint)
        config = loaded.config
        cache = loaded.policy.zeros_like()
        state = TrainingState({0: loaded.policy}, cache, Progress())
    if config.crop != TrainConfig.crop or len(config.actions) != 2:
        raise UsageError(
            f"{checkpoint}: the benchmark's classic player needs a policy with two actions that "
            "sees all of rows 35 to 195; this policy differs"
        )
    endless: dict[str, Any] = dict.fromkeys(STOP_CONDITIONS)
    config = replace(
        config,
        learning_rate=_FROZEN,
        batch_size=10,
        episodes_per_task=1,
        policy_lag=1,
        checkpoint_every=25,
        **endless,
    )
    return config, state


def _train(
    config: TrainConfig,
    state: TrainingState,
    workers: int,
    seconds: float,
    start: Callable[[TrainConfig], Worker],
) -> Rate:
    pool = _CountingPool(config, workers, start=start)
    with pool:
        _watch_training(config, state, pool, seconds)
    # A worker's first two episodes are left out: they include the wait for the start, and the
    # loading of the compiled step.
    games = pool.finished[2 * workers :]
    played = sum(game.seconds for game in games)
    worked = played + sum(game.waited_seconds for game in games)
    return Rate(
        episodes=len(games),
        frames=sum(game.frames for game in games),
        seconds=worked / workers,
        worker_busy=played / worked,
        gradient_bytes=statistics.mean(game.gradient_bytes for game in games),
    )


class _CountingPool(RayWorkerPool):
    """Records every episode, so that only whole episodes and their time are counted."""

    def __init__(
        self, config: TrainConfig, workers: int, start: Callable[[TrainConfig], Worker]
    ) -> None:
        super().__init__(config, lambda: workers, start=start)
        self.finished: list[EpisodeStats] = []

    def poll(self, timeout: float, deadline: float) -> list[PoolEvent]:
        """See :meth:`RayWorkerPool.poll`."""
        events = super().poll(timeout, deadline)
        for event in events:
            if isinstance(event, EpisodeDone):
                self.finished += event.stats
        return events


def _watch_training(
    config: TrainConfig, state: TrainingState, pool: RayWorkerPool, seconds: float
) -> list[UpdateRecord]:
    """Run the full training loop, with metrics and checkpoints, once the workers are ready."""
    while pool.starting:
        pool.poll(1.0, config.hang_seconds)
    with tempfile.TemporaryDirectory() as folder:
        start = TrainingState(dict(state.policies), state.cache.copy(), Progress())
        run_dir = RunDir.create(replace(config, run_dir=Path(folder) / "run"))
        saved = run_dir.save(config, start, best=False)
        watch, begin = _RecordingReporter(), time.perf_counter()
        learner = Learner(config, start, pool, run_dir, watch, saved)
        try:
            learner.run(lambda: len(watch.records) > 1 and time.perf_counter() - begin > seconds)
        finally:
            learner.wait()  # a checkpoint may still be being written to the temporary folder
    return watch.records


def _rate(records: list[UpdateRecord]) -> Rate:
    """The rate from the first update, when all workers are busy, to the last."""
    first, last = records[0], records[-1]
    return Rate(
        last.episodes - first.episodes,
        last.frames - first.frames,
        last.wall_seconds - first.wall_seconds,
    )


def _row(key: Key, rates: dict[Key, list[Rate]]) -> Row:
    name, workers = key
    frames = [rate.frames / rate.seconds for rate in rates[key]]
    return Row(
        name=name,
        workers=workers,
        frames_per_second=statistics.median(frames),
        slowest=min(frames),
        fastest=max(frames),
        episodes_per_hour=statistics.median(
            3600 * rate.episodes / rate.seconds for rate in rates[key]
        ),
        of_emulator=_ratio(rates, key, ("emulator", workers)),
        speedup=_ratio(rates, key, (name, 1)),
        worker_busy=_median(rate.worker_busy for rate in rates[key]),
        gradient_bytes=_median(rate.gradient_bytes for rate in rates[key]),
    )


def _median(values: Iterable[float | None]) -> float | None:
    """Median of the measured values; None if there are none."""
    measured = [value for value in values if value is not None]
    return statistics.median(measured) if measured else None


def _ratio(rates: dict[Key, list[Rate]], key: Key, reference: Key) -> float:
    """Median ratio of frames per second over the rounds; 1 without a reference."""
    return statistics.median(
        (rate.frames / rate.seconds) / (base.frames / base.seconds)
        for rate, base in zip(rates[key], rates.get(reference, rates[key]), strict=True)
    )
