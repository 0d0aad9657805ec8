"""Runs the real learner under random faults in virtual time; all runs must give the same bits.

The seed determines everything: the run's settings, the workers and the faults. As a script,

    python tests/support/fault_simulation.py --seeds 10000

it runs this many seeds and prints those that fail; ``--first S --seeds 1`` replays one.
"""

import argparse
import collections
import math
import random
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from simulated_pool import Clock, Faults, SimulatedWorkerPool

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rmsprop import RMSProp
from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.episode import EpisodeStats
from distributed_pg.monitoring.log import log_shown_by
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.metrics import UpdateRecord
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.training.learner import Learner
from distributed_pg.training.schedule import EpisodeTask
from distributed_pg.training.worker_pool import PoolEvent

INPUTS, HIDDEN = 8, 3
DEADLOCK_SECONDS = 20_000.0
"""Virtual time after which a run counts as deadlocked."""


@dataclass(frozen=True)
class Scenario:
    """The scenario that a seed determines."""

    config: TrainConfig
    workers: int
    faults: Faults
    kills: tuple[float, ...]
    """When the learner's process is killed, in virtual seconds since its start."""


def scenario(seed: int) -> Scenario:
    """Generate the scenario of a seed: up to five kinds of faults at random rates."""
    chance = random.Random(seed)
    episodes_per_task = chance.choice([1, 1, 2, 3])
    batch_size, updates = episodes_per_task * chance.randint(1, 6), chance.randint(2, 6)
    if chance.random() < 0.1:  # long enough to lower the learning rate
        updates += math.ceil(100 / batch_size)
    config = TrainConfig(
        seed=seed,
        batch_size=batch_size,
        episodes_per_task=episodes_per_task,
        policy_lag=chance.randint(0, 3),
        anneal_episodes=chance.choice([None, 50]),
        stop_episodes=batch_size * updates,
        checkpoint_every=chance.randint(1, 3),
        backup_after=chance.choice([2.0, 4.0]),
    )
    kinds = [kind.name for kind in fields(Faults)]
    chosen = chance.sample(kinds, chance.randint(0, 5))
    rates = {kind: chance.choice([0.02, 0.1, 0.25]) for kind in chosen}
    kills = tuple(chance.uniform(0, 40) for _ in range(chance.choice([0, 0, 1, 2])))
    return Scenario(config, chance.randint(1, 8), Faults(**rates), kills)


def play(task: EpisodeTask, policy: Policy) -> tuple[EpisodeStats, Gradient]:
    """Simulate an episode; the result depends on its index and on all weights it is played with."""
    chance = np.random.default_rng(task.episode)
    rows = np.sort(chance.permutation(INPUTS)[:4]).astype(np.int32)
    noise = chance.standard_normal((4, HIDDEN)).astype(np.float32)
    total = np.float32(policy.w1.sum() + policy.w2.sum())
    which = chance.permutation(4).astype(np.int32)
    gradient = Gradient(
        rows, which, policy.w1[rows] + total * noise, policy.w2 * total - noise[0][:, None]
    )
    seconds = float(chance.lognormal(0.0, 0.3))
    reward = reward_of(task.episode)
    return EpisodeStats(reward, 10, 40, seconds, seconds, 0, 0, 0.0), gradient


def reward_of(episode: int) -> float:
    """A reward that identifies the episode in the metrics.

    The first 100 have a mean above 0, and the next windows of 100 an ever higher one.
    """
    return float((episode + 22) % 43 - 21)


def initial_state(config: TrainConfig) -> TrainingState:
    """Like :meth:`TrainingState.initial`, with a small policy."""
    policy = Policy.init(config.seed, INPUTS, HIDDEN, 2)
    return TrainingState({0: policy}, policy.zeros_like(), Progress())


def by_the_definition(config: TrainConfig, updates: int) -> Policy:
    """The run's final weights, computed sequentially by the definition in the README."""
    start = initial_state(config)
    versions, cache = [start.policy], start.cache.copy()
    for update in range(updates):
        total = start.policy.zeros_like()
        version = max(0, update - config.policy_lag)
        for first in range(0, config.batch_size, config.episodes_per_task):
            group = start.policy.zeros_like()
            for i in range(first, first + config.episodes_per_task):
                task = EpisodeTask(update * config.batch_size + i, version)
                _, gradient = play(task, versions[version])
                group.w1[gradient.rows] += gradient.unique_w1_rows[gradient.row_index]
                group.w2[...] += gradient.w2
            for whole, part in zip(total.arrays, group.arrays, strict=True):
                whole += part
        policy = versions[-1].copy()
        decay = min(config.decay, update / (update + 1)) if config.warm_up else config.decay
        missing = missing_share(config, update)
        annealed = 1 + update * config.batch_size / (config.anneal_episodes or math.inf)
        rate = config.learning_rate * missing * missing / annealed
        policy.w1[...] *= 1 - rate * config.weight_decay
        RMSProp(rate, decay, 1).step(policy, cache, total)
        if update * config.batch_size >= 100:
            policy.w2[:, 0] *= math.sqrt(missing / missing_share(config, update + 1))
        versions.append(policy)
    return versions[-1]


def missing_share(config: TrainConfig, update: int) -> float:
    """What the best 100 episodes before an update lack to 21, from all rewards before it."""
    ends = range(config.batch_size, update * config.batch_size + 1, config.batch_size)
    means = [sum(map(reward_of, range(end - 100, end))) / 100 for end in ends if end >= 100]
    return (21 - max([0.0, *means])) / 21


class Killed(BaseException):
    """The learner's process is gone."""


class MortalCluster(SimulatedWorkerPool):
    """Kills the learner at a given time; only what is on disk survives."""

    kill_at = float("inf")

    def poll(self, timeout: float, deadline: float) -> list[PoolEvent]:
        before = len(self.faults)
        events = super().poll(timeout, deadline)
        if self.clock.now > self.kill_at:
            del self.faults[before:]  # the learner never received these
            raise Killed
        assert self.clock.now < DEADLOCK_SECONDS, "deadlock"
        return events


class MemoryDisk(RunDir):
    """A run's folder in memory."""

    def __init__(self, path: Path, state: TrainingState) -> None:
        super().__init__(path)
        self.saved = state
        self.records: dict[int, UpdateRecord] = {}

    def save(self, config: TrainConfig, state: TrainingState, *, best: bool) -> Path:
        policies = {version: policy.copy() for version, policy in state.policies.items()}
        self.saved = TrainingState(policies, state.cache.copy(), state.progress)
        return self.path

    def append(self, record: UpdateRecord) -> None:
        before = self.records.setdefault(record.update, record)
        assert before.weights_checksum == record.weights_checksum, "an update made twice, unequal"


class Listener:
    """Counts backups and collects faults from the log."""

    def __init__(self) -> None:
        self.reported: list[str] = []
        self.backups = 0

    def message(self, text: str) -> None:
        if "a second worker plays it too" in text:
            self.backups += 1
        elif "some will wait" not in text:  # not a fault
            self.reported.append(text)

    def updated(self, record: UpdateRecord) -> None:
        pass


TOTAL: collections.Counter[str] = collections.Counter()
"""Number of faults in all runs so far, by kind."""


def check(seed: int) -> None:
    """Run the seed's scenario.

    Raises:
        AssertionError: the run violated a guarantee.
    """
    case = scenario(seed)
    config = case.config
    assert config.stop_episodes is not None
    updates = config.stop_episodes // config.batch_size
    listener, clock = Listener(), Clock()
    disk = MemoryDisk(Path(tempfile.gettempdir()), initial_state(config))
    faults: collections.Counter[str] = collections.Counter()
    kills = 0
    while True:
        policies = {v: policy.copy() for v, policy in disk.saved.policies.items()}
        state = TrainingState(policies, disk.saved.cache.copy(), disk.saved.progress)
        pool = MortalCluster(
            play,
            case.workers,
            case.faults,
            seed=seed + kills,
            clock=clock,
            most_versions=config.policy_lag + 2,
        )
        if kills < len(case.kills):
            pool.kill_at = clock.now + case.kills[kills]
        learner = Learner(config, state, pool, disk, listener, disk.path, clock)
        try:
            with log_shown_by(listener.message):
                assert learner.run(lambda: False), "stopped early"
        except Killed:
            learner.wait()
            kills += 1
            faults.update(pool.faults)
            continue
        learner.save()
        state = learner.state
        faults.update(pool.faults)
        break
    rewards = [r for _, record in sorted(disk.records.items()) for r in record.rewards]
    assert rewards == [reward_of(episode) for episode in range(config.stop_episodes)]
    expected = weights_checksum(by_the_definition(config, updates))
    assert weights_checksum(state.policy) == expected, "other bits"
    assert weights_checksum(disk.saved.policy) == expected, "other bits on the disk"
    assert faults.total() == len(listener.reported), "not reported once"
    TOTAL.update(faults)
    TOTAL.update({"second worker": listener.backups, "learner killed": kills})


def problem(seed: int) -> str | None:
    """How the seed's run failed, with the command to replay it; None if it succeeded."""
    try:
        check(seed)
    except Exception as error:  # noqa: BLE001  # the seed reproduces any of them
        replay = f"python tests/support/fault_simulation.py --first {seed} --seeds 1"
        return f"{type(error).__name__}: {error}; replay: {replay}"
    return None


def main() -> None:
    """Run many seeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds (1000)")
    parser.add_argument("--first", type=int, default=0, help="first seed (0)")
    arguments = parser.parse_args()
    begin = time.monotonic()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    problems = {seed: found for seed in seeds if (found := problem(seed))}
    for found in problems.values():
        print(found)
    seconds = time.monotonic() - begin
    print(f"{len(seeds)} seeds in {seconds:.0f} s, {len(problems)} failed")
    for kind, count in sorted(TOTAL.items()):
        print(f"{count:8d} {kind}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
