"""Sweeps whose trials are files of a few kilobytes, for tests that train nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from records import record_of
from small_runs import CONFIG, state_after

from distributed_pg.storage.run_dir import RunDir
from distributed_pg.sweep.folder import SweepFolder
from distributed_pg.sweep.plan import SweepPlan, Trial

BASE = replace(CONFIG, stop_frames=100)
"""100 frames; an update of :func:`play` has 10."""


def new_sweep(path: Path, seeds: int = 2, **grid: tuple[Any, ...]) -> SweepFolder:
    folder = SweepFolder.create(path, SweepPlan(BASE, tuple(range(seeds)), grid))
    folder.save_plan()
    return folder


def play(folder: SweepFolder, trial: Trial, *means: float) -> None:
    """Give a trial an update of 10 frames for each of these mean rewards, and a checkpoint."""
    run = RunDir.create(replace(trial.config, run_dir=folder.run_of(trial)))
    for update, mean in enumerate(means, 1):
        changes = {"frames": 10 * update, "mean_100": mean, "running_mean": mean}
        run.append(record_of(update, wall_seconds=update, **changes))
    state = state_after(len(means))
    progress = replace(state.progress, frames=10 * len(means))
    run.save(trial.config, replace(state, progress=progress), best=False)
