"""What is known of each trial: whether it waits, runs or is over, and how far it got."""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from distributed_pg.sweep.folder import SweepFolder
from distributed_pg.sweep.plan import Trial

Status: TypeAlias = Literal["waiting", "running", "done", "stopped early", "failed"]


@dataclass(frozen=True, slots=True)
class TrialState:
    """A trial as the user sees it."""

    trial: Trial
    status: Status
    workers: int = 0
    """Its workers while it runs."""
    record: dict[str, Any] | None = None
    """The last line of its metrics; None before its first update."""
    reason: str = ""
    """Why it failed."""

    @property
    def update(self) -> int:
        """Updates made so far."""
        return 0 if self.record is None else int(self.record["update"])


class TrialStates:
    """The states of all trials of a sweep, in the order of the plan.

    Args:
        folder: the sweep's folder, from which the states are read at the beginning.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self._states = {
            trial.name: TrialState(trial, self._saved_status(trial), 0, folder.last_record(trial))
            for trial in folder.trials
        }

    def all(self) -> list[TrialState]:
        """All states."""
        return list(self._states.values())

    def waiting(self) -> list[Trial]:
        """The trials that are neither running nor over."""
        return [state.trial for state in self._states.values() if state.status == "waiting"]

    @property
    def updates(self) -> int:
        """Updates made by all trials together."""
        return sum(state.update for state in self._states.values())

    def of(self, trial: Trial) -> TrialState:
        """The state of a trial, with its newest record."""
        record = self._folder.last_record(trial)
        return self._set(trial) if record is None else self._set(trial, record=record)

    def started(self, trial: Trial, workers: int) -> None:
        """Record that a process trains the trial."""
        self._set(trial, status="running", workers=workers)

    def ended(self, trial: Trial) -> Status:
        """Record that the trial's process has ended; return what the files say of the trial."""
        self.of(trial)
        return self._set(trial, status=self._saved_status(trial), workers=0).status

    def failed(self, trial: Trial, reason: str) -> None:
        """Record that the trial failed."""
        self._set(trial, status="failed", workers=0, reason=reason)

    def _set(self, trial: Trial, **changes: Any) -> TrialState:
        state = self._states[trial.name]
        if changes:
            state = self._states[trial.name] = replace(state, **changes)
        return state

    def _saved_status(self, trial: Trial) -> Status:
        if trial.name in self._folder.stopped:
            return "stopped early"
        return "done" if self._folder.is_done(trial) else "waiting"
