"""Stops hopeless trials by asynchronous successive halving."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distributed_pg.errors import RunError, UsageError, one_line
from distributed_pg.storage.checkpoint import DECODE_ERRORS
from distributed_pg.storage.metrics import METRICS, read_metrics
from distributed_pg.sweep.folder import Stopped, SweepFolder
from distributed_pg.sweep.plan import Trial

_FIRST_RUNG = 0.05
"""The earliest comparison, as a fraction of a trial's frames."""


class Rungs:
    """Compares trials when they have played certain numbers of frames, the rungs.

    A trial goes on from a rung if its mean reward there is among the best 1/``factor`` of all
    trials that have been there so far: the stopping variant of asynchronous successive halving (Li
    et al., "A system for massively parallel hyperparameter tuning", 2020). The first trial at a
    rung always goes on, so which trials are stopped depends on the order in which they get there.

    Args:
        folder: the sweep's folder; its trials may have been at rungs already.
        factor: how many trials compete for a place, at least 2; also the ratio between two rungs.

    Raises:
        UsageError: the trials have no ``stop_frames``.
    """

    def __init__(self, folder: SweepFolder, factor: int) -> None:
        frames = folder.plan.base.stop_frames
        if frames is None:
            raise UsageError("halving: compares trials at shares of --stop-frames; give it as well")
        self._folder = folder
        self._factor = factor
        self._means: dict[int, dict[str, float]] = {rung: {} for rung in rungs(frames, factor)}
        for trial in folder.trials:
            record = folder.last_record(trial)
            if record is not None:
                self._take(trial, record)

    def is_hopeless(self, trial: Trial, record: Mapping[str, Any]) -> bool:
        """Whether a running trial has reached a rung and is worse there than most others were.

        If so, that is recorded in the sweep's folder.

        Args:
            trial: the trial.
            record: the last line of its metrics.
        """
        for rung in self._take(trial, record):
            means = self._means[rung]
            others = [mean for name, mean in means.items() if name != trial.name]
            if is_hopeless(means[trial.name], others, self._factor):
                self._folder.stop(trial, Stopped(rung, means[trial.name]))
                return True
        return False

    def _take(self, trial: Trial, record: Mapping[str, Any]) -> list[int]:
        """Note the trial's means at the rungs it has newly reached; return these rungs."""
        new = [
            rung
            for rung, means in self._means.items()
            if record["frames"] >= rung and trial.name not in means
        ]
        if new:
            path = self._folder.run_of(trial) / METRICS
            try:
                records = read_metrics(path)
                for rung in new:
                    first = next(line for line in records if line["frames"] >= rung)
                    self._means[rung][trial.name] = float(first["mean_100"])
            except StopIteration:  # the trial has just been resumed from an earlier update
                return []
            except (OSError, *DECODE_ERRORS) as error:
                raise RunError(f"{path}: cannot be used ({one_line(error)})") from None
        return new


def rungs(frames: int, factor: int) -> list[int]:
    """The frames at which trials of ``frames`` frames are compared, ascending."""
    found = []
    rung = frames // factor
    while rung >= _FIRST_RUNG * frames:
        found.append(rung)
        rung //= factor
    return found[::-1]


def is_hopeless(mean: float, others: Sequence[float], factor: int) -> bool:
    """Whether a trial's mean reward is not among the best 1/``factor`` at a rung.

    Args:
        mean: the trial's mean reward there.
        others: those of the other trials that have been there.
        factor: how many trials compete for a place.
    """
    places = math.ceil((len(others) + 1) / factor)
    return sum(other > mean for other in others) >= places
