"""Measures how an episode's time divides between the emulator and everything else.

Plays the same episodes with the kernels of a training run and times both parts of each:

    python scripts/profile_episode.py
    python scripts/profile_episode.py --checkpoint runs/NAME --episodes 5
"""

import argparse
import statistics
import time
from pathlib import Path

from distributed_pg.determinism import pin_kernels

pin_kernels()  # before numpy is imported

from distributed_pg.algo.state import TrainingState  # noqa: E402
from distributed_pg.config import TrainConfig  # noqa: E402
from distributed_pg.envs.pong import PongEnv  # noqa: E402
from distributed_pg.episode import rollout  # noqa: E402
from distributed_pg.storage.policy_file import load_policy  # noqa: E402


def main() -> None:
    """Print a line per episode, the median overhead and the time of a reset."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=10, help="episodes to time (10)")
    parser.add_argument("--checkpoint", type=Path, help="weights to play with (random ones)")
    arguments = parser.parse_args()

    config = TrainConfig()
    policy = TrainingState.initial(config).policy
    if arguments.checkpoint:
        loaded = load_policy(arguments.checkpoint)
        config, policy = loaded.config, loaded.policy
    env = PongEnv(**config.env_settings())
    rollout(env, policy, config, 0)  # warm up

    print("episode  steps  reward  seconds  us/step  emulator us/step  overhead")
    overheads = []
    for episode in range(arguments.episodes):
        stats = rollout(env, policy, config, episode).stats
        overheads.append(1.0 - stats.emulator_seconds / stats.seconds)
        print(
            f"{episode:7d} {stats.steps:6d} {stats.reward:7.0f} {stats.seconds:8.3f}"
            f" {1e6 * stats.seconds / stats.steps:8.1f}"
            f" {1e6 * stats.emulator_seconds / stats.steps:17.1f} {overheads[-1]:9.1%}"
        )
    print(f"Everything but the emulator, median: {statistics.median(overheads):.1%} of an episode")

    resets = []
    for seed in range(100):
        begin = time.perf_counter()
        env.reset(seed=seed)
        resets.append(time.perf_counter() - begin)
    print(f"reset(seed=...), median: {1e3 * statistics.median(resets):.3f} ms")


if __name__ == "__main__":
    main()
