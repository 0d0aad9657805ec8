"""Checks made before a run resumes: same settings, work left to do, no files missing."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed_pg.algo.state import Progress
from distributed_pg.config import STOP_CONDITIONS, TrainConfig, may_change, of_the_place
from distributed_pg.errors import RunError, UsageError, counted
from distributed_pg.storage.checkpoint import Checkpoint
from distributed_pg.storage.metrics import METRICS
from distributed_pg.storage.run_dir import CONFIG, parse_config
from distributed_pg.training.learner import stop_reached


def check_same_run(config: TrainConfig, saved: TrainConfig) -> None:
    """Refuse changes of settings that would turn the saved run into a different one.

    Args:
        config: the settings to resume with.
        saved: the settings in the run's checkpoint.

    Raises:
        UsageError: there are such changes; the message names them.
    """
    changed = [
        f"{name}: the run in {config.location} has {getattr(saved, name)}, "
        f"not {getattr(config, name)}"
        for name in config.changed_settings(saved)
    ]
    if changed:
        raise UsageError("; ".join(changed))


def held_conditions(config: TrainConfig, progress: Progress) -> list[str]:
    """Names of the stop conditions that already hold.

    Args:
        config: the settings to resume with.
        progress: the run so far.
    """
    none: dict[str, Any] = dict.fromkeys(STOP_CONDITIONS)
    alone = {
        name: replace(config, **{**none, name: getattr(config, name)}) for name in STOP_CONDITIONS
    }
    seconds = progress.wall_seconds
    return [name for name, only in alone.items() if stop_reached(only, progress, seconds)]


def nothing_left(config: TrainConfig, progress: Progress, held: list[str]) -> str:
    """The message for a run that has nothing left to do, with advice on what to change.

    Args:
        config: the settings to resume with.
        progress: the run so far.
        held: the stop conditions that hold, at least one.
    """
    without_gain = counted(progress.episodes_since_peak, "episode")
    reached = {
        "stop_episodes": counted(progress.episodes, "episode"),
        "stop_frames": counted(progress.frames, "frame"),
        "stop_minutes": f"{progress.wall_seconds / 60:.3g} minutes of training",
        "stop_plateau": f"{without_gain} without a higher mean reward",
        "stop_reward": f"a mean reward of {progress.mean_100 or 0.0:.2f}",
    }
    reasons = ", ".join(
        f"{name} is {getattr(config, name)}, and it has {reached[name]}" for name in held
    )
    flags = [f"--{name.replace('_', '-')}" for name in (*held, *STOP_CONDITIONS)]
    first, *others = dict.fromkeys(flags)
    return (
        f"Nothing is left to do in {config.location}: {reasons}. Give another {first}, or "
        f"{', '.join(others[:-1])} or {others[-1]}: those that are given replace all saved ones"
    )


def repairs(folder: Path, config: TrainConfig, checkpoint: Checkpoint) -> Iterator[str]:
    """Describe where a run's folder disagrees with its checkpoint; the checkpoint takes precedence.

    Args:
        folder: the run's folder.
        config: the settings to resume with.
        checkpoint: the checkpoint to resume from.

    Yields:
        One line per disagreement.
    """
    yield from _ignored_settings(folder / CONFIG, config, checkpoint.config)
    update = checkpoint.state.progress.update
    lines = _updates_in(folder / METRICS)
    missing = [number for number in range(1, update + 1) if number not in lines]
    if missing:
        yield (
            f"{folder / METRICS}: the lines of {len(missing)} of {counted(update, 'update')} are "
            f"missing, from update {missing[0]} on; curves have a gap there, the run does not"
        )


def _ignored_settings(path: Path, config: TrainConfig, saved: TrainConfig) -> Iterator[str]:
    """One line per setting in config.json that differs from the checkpoint and was not given."""
    try:
        written = parse_config(path.read_bytes(), str(path))
    except (OSError, RunError) as error:
        yield f"{error}; it is rewritten from the checkpoint"
        return
    names = saved.to_json().keys() - of_the_place()
    if any(getattr(config, name) != getattr(saved, name) for name in STOP_CONDITIONS):
        names -= set(STOP_CONDITIONS)  # those given replace all saved ones
    for name in sorted(names):
        here, kept, given = (getattr(source, name) for source in (written, saved, config))
        if here == kept or given != kept:
            continue
        flag = f"--{name.replace('_', '-')}"
        advice = f"give {flag}" if name in may_change() else f"begin a new run with {flag}"
        yield f"{path}: {name} {here} is ignored, the checkpoint has {kept}; to change it, {advice}"


def _updates_in(path: Path) -> set[int]:
    """Numbers of the updates that have a complete line in metrics.jsonl."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return set()
    return set(map(_update_in, lines))


def _update_in(line: bytes) -> int:
    try:
        return int(json.loads(line)["update"])
    except (ValueError, TypeError, LookupError):  # cut off or empty
        return -1
