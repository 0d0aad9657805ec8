"""Sweeps whose trials were never trained: their metrics are made up."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from records import record_of

from distributed_pg.algo.state import WINDOW, Progress, TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.sweep.folder import SweepFolder
from distributed_pg.sweep.plan import SweepPlan, Trial

FRAMES = 5000
"""Emulated frames of an episode."""


def make_sweep(
    path: Path, base: TrainConfig, seeds: Sequence[int], **grid: tuple[Any, ...]
) -> SweepFolder:
    """A sweep in which no trial has begun."""
    folder = SweepFolder.create(path, SweepPlan(base, tuple(seeds), grid))
    folder.save_plan()
    return folder


def make_run(folder: SweepFolder, trial: Trial, means: Sequence[float]) -> None:
    """Give a trial an update for each of these means, and a checkpoint of the last one."""
    config = replace(trial.config, run_dir=folder.run_of(trial))
    run, batch = RunDir.create(config), config.batch_size
    for update, mean in enumerate(means, 1):
        run.append(
            record_of(
                update,
                episodes=batch * update,
                frames=FRAMES * batch * update,
                wall_seconds=6.0 * update,
                rewards=[mean] * batch,
                lengths=[FRAMES] * batch,
                running_mean=mean,
                mean_100=mean,
                best_reward=mean,
                weights_checksum=f"{trial.name}: {update}",
            )
        )
    state, update = TrainingState.initial(config), len(means)
    versions = range(max(0, update - config.policy_lag), update + 1)
    state.policies = dict.fromkeys(versions, state.policy)
    state.progress = Progress(
        update=update,
        episodes=batch * update,
        frames=FRAMES * batch * update,
        wall_seconds=6.0 * update,
        last_rewards=(means[-1],) * min(WINDOW, batch * update),
    )
    run.save(config, state, best=False)
