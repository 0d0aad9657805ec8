"""Measure training against its limit, the bare emulator, and against the usual ways to train.

Everything is measured in one run, in turns, several rounds: machines are noisy, and a ratio of two
numbers taken minutes apart means little. The weights never change (the learning rate is too small
to reach the last bit of any of them), so every round plays the same games.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from distributed_pg.algo.rollout import EpisodeResult, EpisodeStats, rollout
from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.benchmark.comparisons import (
    Rate,
    classic_rate,
    emulator_rate,
    rollout_rate,
    tutorial_rate,
)
from distributed_pg.benchmark.saturation import start_waiting, wait_for
from distributed_pg.config import STOP_CONDITIONS, TrainConfig, preset
from distributed_pg.determinism import ONE_THREAD, native_kernels
from distributed_pg.envs.pong import PongEnv
from distributed_pg.errors import UsageError
from distributed_pg.runtime.actor import Worker, start_worker
from distributed_pg.runtime.ray_worker_pool import RayWorkerPool
from distributed_pg.runtime.session import ray_session
from distributed_pg.storage.metrics import UpdateRecord
from distributed_pg.storage.policy_file import load_policy
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.training.learner import Learner
from distributed_pg.training.worker_pool import EpisodeDone, PoolEvent

_STANDING_STILL = 1e-12
"""A learning rate that moves no float32 weight."""

_PLAYED = 16
"""Different episodes that simulated workers pretend to play."""

Key = tuple[str, int]
"""What was measured, and on how many workers."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured, over all rounds."""

    name: str
    """training, native (training with all vector instructions of the CPU), rollout (workers without
    Ray and a learner), emulator (nothing else), tutorial or classic."""
    workers: int
    frames_per_second: float
    """Emulated frames per second, median of the rounds."""
    slowest: float
    fastest: float
    """Frames per second of the slowest and the fastest round."""
    episodes_per_hour: float
    """Median of the rounds."""
    of_emulator: float
    """Frames per second as a share of as many bare emulators', median of the rounds' ratios."""
    speedup: float
    """Frames per second over the same with one worker, likewise; 1 where that was not measured."""
    worker_busy: float | None
    """Share of the workers' time spent playing, median; None where it is not measured."""
    gradient_bytes: float | None
    """Size of a gradient sent to the learner, mean; likewise."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What the learner did for so many simulated workers."""

    workers: int
    gradients_per_second: float
    """Gradients fetched, summed and applied."""
    worker_busy: float
    """Share of the time a worker would have played."""
    episode_seconds: float
    """How long it pretended to play, mean."""
    gradient_bytes: int
    """Size of a gradient, mean."""


class _RecordingReporter:
    """A reporter that remembers the updates."""

    def __init__(self) -> None:
        self.records: list[UpdateRecord] = []

    def updated(self, record: UpdateRecord) -> None:
        """Remember it."""
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
    """Measure training on each number of workers, and the references, ``rounds`` times in turns.

    Args:
        num_workers: worker counts to measure.
        rounds: how often each is measured.
        seconds: how long each measurement takes, at least.
        native: measure training also with workers that are not held to SSE.
        checkpoint: whose policy plays, at its frame skip; None: the initial one at 4 frames a step.
        address: of a Ray cluster; the references without Ray still run on this machine.
        progress: told what is being measured.

    Raises:
        UsageError: there is nothing at ``checkpoint``.
        RunError: it cannot be read, or nobody answers at the address.
    """
    contestants = _contestants(*_standing_still(checkpoint), num_workers, seconds, native=native)
    rates: dict[Key, list[Rate]] = {key: [] for key in contestants}
    # All processes start without our settings; the workers of training are given them.
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
    """What is measured, and how."""
    most, contestants = max(num_workers), dict[Key, Callable[[], Rate]]()
    for n in num_workers:
        contestants["emulator", n] = partial(emulator_rate, n, seconds)
        contestants["rollout", n] = partial(rollout_rate, config, state.policy, n, seconds)
        contestants["training", n] = partial(_train, config, state, n, seconds, start_worker)
        if native:
            start = partial(start_worker, kernels=ONE_THREAD)
            contestants["native", n] = partial(_train, config, state, n, seconds, start)
    played_by_all = state.policy, config.frame_skip
    contestants["tutorial", most] = partial(tutorial_rate, *played_by_all, most, seconds)
    contestants["classic", 1] = partial(classic_rate, *played_by_all, seconds)
    return contestants


def simulate(
    workers: list[int],
    seconds: float,
    *,
    checkpoint: str | Path | None = None,
    address: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Simulation]:
    """Find how many workers one learner can serve, with workers that only wait.

    An update sums as many episodes as there are workers, so that none waits for the schedule.

    Args:
        workers: numbers of simulated workers.
        seconds: how long each is measured, at least.
        checkpoint: whose policy's episode they pretend to play; None: the initial one's.
        address: of a Ray cluster; None: this machine.
        progress: told what is being measured.

    Raises:
        UsageError: there is nothing at ``checkpoint``.
        RunError: it cannot be read, or nobody answers at the address.
    """
    config, state = _standing_still(checkpoint)
    env = PongEnv(**config.env_settings())
    played = [rollout(env, state.policy, config, episode) for episode in range(_PLAYED)]
    simulations = []
    with ray_session(address, 1):
        for n in workers:
            progress(f"simulating {n} workers")
            start = start_waiting(n, played)
            with RayWorkerPool(config, partial(int, n), wait_for, start=start) as pool:
                records = _watch_training(replace(config, batch_size=n), state, pool, seconds)
            simulations.append(_simulation(n, played, _rate(records)))
    return simulations


def _simulation(workers: int, played: list[EpisodeResult], rate: Rate) -> Simulation:
    episode_seconds = statistics.mean(result.stats.seconds for result in played)
    per_second = rate.episodes / rate.seconds
    return Simulation(
        workers=workers,
        gradients_per_second=per_second,
        worker_busy=per_second * episode_seconds / workers,
        episode_seconds=episode_seconds,
        gradient_bytes=round(statistics.mean(result.gradient.nbytes for result in played)),
    )


def _standing_still(checkpoint: str | Path | None) -> tuple[TrainConfig, TrainingState]:
    """The settings and the weights to measure with."""
    config = preset("karpathy")  # 4 frames a step, as the classic script
    state = TrainingState.initial(config)
    if checkpoint is not None:
        loaded = load_policy(checkpoint)
        config = loaded.config
        cache = loaded.policy.zeros_like()
        state = TrainingState({0: loaded.policy}, cache, Progress())
    if config.crop != TrainConfig.crop or len(config.actions) != 2:
        raise UsageError(
            f"{checkpoint}: the classic way plays UP and DOWN and sees rows 35 to 195 whole; "
            "this policy does not"
        )
    endless: dict[str, Any] = dict.fromkeys(STOP_CONDITIONS)
    config = replace(
        config,
        learning_rate=_STANDING_STILL,
        batch_size=10,
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
    # Before a worker's first episode it waited for the start.
    games = pool.finished[workers:]
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
    """Remembers every episode, so that whole episodes are counted with the time they took."""

    def __init__(
        self, config: TrainConfig, workers: int, start: Callable[[TrainConfig], Worker]
    ) -> None:
        super().__init__(config, lambda: workers, start=start)
        self.finished: list[EpisodeStats] = []

    def poll(self, timeout: float, deadline: float) -> list[PoolEvent]:
        """:meth:`RayWorkerPool.poll`."""
        events = super().poll(timeout, deadline)
        self.finished += [event.stats for event in events if isinstance(event, EpisodeDone)]
        return events


def _watch_training(
    config: TrainConfig, state: TrainingState, pool: RayWorkerPool, seconds: float
) -> list[UpdateRecord]:
    """Run the whole training loop, metrics and checkpoints included, when the workers are ready."""
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
            learner.wait()  # else a checkpoint would be written into a folder that goes away
    return watch.records


def _rate(records: list[UpdateRecord]) -> Rate:
    """From the first update, when all is under way, to the last."""
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
    """Of the values that were measured; None if none was."""
    measured = [value for value in values if value is not None]
    return statistics.median(measured) if measured else None


def _ratio(rates: dict[Key, list[Rate]], key: Key, reference: Key) -> float:
    """Median over the rounds of the ratio of frames per second; 1 without a reference."""
    return statistics.median(
        (one.frames / one.seconds) / (other.frames / other.seconds)
        for one, other in zip(rates[key], rates.get(reference, rates[key]), strict=True)
    )
