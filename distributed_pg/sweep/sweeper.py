"""Runs the trials of a sweep on one Ray, so that all CPUs are busy."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.runtime.health import RayLostError, RayStartError
from distributed_pg.runtime.session import RaySession, ray_session, usable_cpus
from distributed_pg.storage.run_lock import locked
from distributed_pg.sweep.folder import SweepFolder
from distributed_pg.sweep.halving import Rungs
from distributed_pg.sweep.plan import Trial
from distributed_pg.sweep.scheduling import is_worth_a_restart, shares
from distributed_pg.sweep.trial_process import TrialProcess
from distributed_pg.sweep.trial_states import TrialState, TrialStates

_LOG = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""Time between two looks at the trials."""
LOCK_SECONDS = 90.0
"""Time that a process of a killed sweep has to leave its trial's folder."""
LEARNERS_PER_CPU = 4
"""Default limit on the running trials, per CPU of this machine: each has a learner here, which
takes some 300 MB and, with four workers, a few percent of a CPU."""
PATIENCE_SECONDS = 30.0
"""Time without a running trial after which a warning is logged."""
MOST_DEATHS = 3
"""Deaths of a trial's process, or of the local Ray, without an update in between after which the
trial, or the sweep, is given up."""


@dataclass(frozen=True, slots=True)
class SweepState:
    """A sweep as the user sees it."""

    trials: list[TrialState]
    """All trials, in the order of the plan."""
    cpus: int
    """CPUs of the machine or the cluster."""


class SweepReporter(Protocol):
    """Shows the sweep to the user."""

    def updated(self, state: SweepState) -> None:
        """Take the state of the sweep; called several times a second."""


def sweep(
    folder: SweepFolder,
    reporter: SweepReporter,
    stop_asked: Callable[[], bool] = lambda: False,
    *,
    trials_at_a_time: int | None = None,
    halving: int | None = None,
) -> list[TrialState]:
    """Train all trials that are not over yet.

    A trial that fails is reported, and the others continue. Whatever ends the sweep, the trials
    keep what they have learned.

    Args:
        folder: the sweep's folder, locked by the caller.
        reporter: shows the sweep.
        stop_asked: polled several times a second; returning True saves and stops all trials.
        trials_at_a_time: upper limit on the number of running trials; each has a learner of its
            own on this machine. None: :data:`LEARNERS_PER_CPU` for each of its CPUs.
        halving: factor of the successive halving that stops hopeless trials; None: none.

    Returns:
        The final states of all trials, in the order of the plan.

    Raises:
        UsageError: a trial needs more CPUs than there are.
        RunError: no cluster answers at the address, or Ray or the folder fails.
    """
    _check_placeable(folder.plan.base)
    rungs = None if halving is None else Rungs(folder, halving)
    sweeper = _Sweeper(folder, reporter, stop_asked, trials_at_a_time, rungs)
    sweeper.run()
    return sweeper.states.all()


class _Sweeper:
    def __init__(
        self,
        folder: SweepFolder,
        reporter: SweepReporter,
        stop_asked: Callable[[], bool],
        trials_at_a_time: int | None,
        rungs: Rungs | None,
    ) -> None:
        self.states = TrialStates(folder)
        self._folder = folder
        self._base = folder.plan.base
        self._reporter = reporter
        self._stop_asked = stop_asked
        self._most_trials = trials_at_a_time or LEARNERS_PER_CPU * usable_cpus()
        self._rungs = rungs
        self._running: list[TrialProcess] = []
        self._deaths: dict[str, tuple[int, int]] = {}
        self._locked_since: dict[str, float] = {}
        self._starved_since = time.monotonic()

    def run(self) -> None:
        """Train until every trial is over, or the user stops the sweep."""
        deaths = 0
        if not self.states.waiting():
            _LOG.info(
                f"All {len(self._folder.trials)} trials are done; more --seeds, another --set or a "
                "later stop condition adds work"
            )
        while self.states.waiting() and not self._stop_asked():
            before = self.states.updates
            try:
                self._run_on_ray()
                return
            except RayStartError:
                # The cause of the stop may also have ended Ray, as a hang-up does.
                if not self._stop_asked():
                    raise
            except RayLostError as error:
                deaths = 1 if self.states.updates > before else deaths + 1
                if not error.ours or deaths == MOST_DEATHS:
                    raise
                _LOG.warning(f"{error}; the trials are saved, and Ray is restarted")

    def _run_on_ray(self) -> None:
        base = self._base
        with ray_session(base.address, "auto", base.max_workers) as session:
            self._starved_since = time.monotonic()
            try:
                while (self.states.waiting() or self._running) and not self._stop_asked():
                    session.check()
                    self._look(session)
                    time.sleep(POLL_SECONDS)
            except RayLostError as error:
                self._stop_all()
                if error.ours:
                    session.end_processes()
                raise
            finally:
                self._stop_all()

    def _look(self, session: RaySession) -> None:
        """Collect the trials that have ended, stop hopeless ones, and start others."""
        if any(process.poll() is not None for process in self._running):
            session.check(at_once=True)  # if Ray is gone, that is why they ended
            self._collect()
        states = [self.states.of(process.trial) for process in self._running]
        for process, state in zip(self._running, states, strict=True):
            if self._rungs and state.record and self._rungs.is_hopeless(state.trial, state.record):
                process.stop()
        cpus = session.workers()
        session.request_cpus(self._wanted_cpus())
        for trial, workers in list(self._to_start(cpus)):
            self._start(trial, workers, session)
        if not self.states.waiting():
            self._give_more_workers(cpus)
        self._warn_if_none_runs(cpus)
        self._reporter.updated(SweepState(self.states.all(), cpus))

    def _start(self, trial: Trial, workers: int, session: RaySession) -> None:
        place = session.address, session.environment
        try:
            process = TrialProcess(trial, workers, self._folder, *place)
        except RunError as error:
            self._fail(trial, str(error))
            return
        self._running.append(process)
        self.states.started(trial, workers)

    def _collect(self) -> None:
        """Take in the trials whose process has ended."""
        ended = [process for process in self._running if process.poll() is not None]
        for process in ended:
            self._running.remove(process)
            if self.states.ended(process.trial) != "waiting" or process.asked_to_stop:
                continue
            if not self._may_retry(process):
                self._fail(process.trial, process.failure())

    def _may_retry(self, process: TrialProcess) -> bool:
        """Whether to resume a trial.

        One that was stopped, or killed as the OOM killer does, is resumed some times; one that
        failed by itself, if it has made updates since: the network or the disk may be back.
        """
        code, state = process.poll(), self.states.of(process.trial)
        count, before = self._deaths.get(state.trial.name, (0, 0))
        count = 1 if state.update > before else count + 1
        self._deaths[state.trial.name] = count, state.update
        if code is None or count == MOST_DEATHS or (code > 0 and state.update <= before):
            return False
        how = process.failure() if code else "stopped by someone else"
        _LOG.warning(f"{state.trial.name}: {how}; it is resumed")
        return True

    def _fail(self, trial: Trial, reason: str) -> None:
        self.states.failed(trial, reason)
        _LOG.warning(f"{trial.name}: failed: {reason}")

    def _to_start(self, cpus: int) -> Iterator[tuple[Trial, int]]:
        """The trials to start now, with their numbers of workers."""
        free = cpus - sum(process.workers for process in self._running)
        places = max(0, min(free, self._most_trials - len(self._running)))
        trials = list(itertools.islice(filter(self._is_free, self.states.waiting()), places))
        for trial, workers in zip(trials, self._shares(trials, free), strict=True):
            if workers > 0:
                yield trial, workers

    def _shares(self, trials: Sequence[Trial], cpus: int) -> list[int]:
        """Numbers of workers for these trials; 0 for those that have to wait."""
        fixed = self._base.num_workers
        if fixed == "auto":
            return shares(cpus, [trial.config.useful_workers for trial in trials])
        return [fixed if (i + 1) * fixed <= cpus else 0 for i in range(len(trials))]

    def _give_more_workers(self, cpus: int) -> None:
        """Stop trials that can be resumed with many more workers, now that no other one waits.

        The number of workers does not change what a trial learns.
        """
        if any(process.asked_to_stop for process in self._running):
            return
        now = self._shares([process.trial for process in self._running], cpus)
        for process, share in zip(self._running, now, strict=True):
            if is_worth_a_restart(process.workers, share):
                process.stop()

    def _wanted_cpus(self) -> int:
        """The CPUs that the unfinished trials can use."""
        fixed = self._base.num_workers
        left = [*(process.trial for process in self._running), *self.states.waiting()]
        trials = left[: self._most_trials]
        each = (t.config.useful_workers if fixed == "auto" else fixed for t in trials)
        return min(sum(each), self._base.max_workers or 10**6)

    def _is_free(self, trial: Trial) -> bool:
        """Whether no process trains in the trial's folder; one of a killed sweep is given time."""
        run = self._folder.run_of(trial)
        try:
            if run.is_dir():
                with locked(run):
                    pass
        except RunError as error:
            self._fail(trial, str(error))
            return False
        except UsageError as error:
            since = self._locked_since.setdefault(trial.name, time.monotonic())
            if time.monotonic() - since > LOCK_SECONDS:
                self._fail(trial, str(error))
            return False
        self._locked_since.pop(trial.name, None)
        return True

    def _warn_if_none_runs(self, cpus: int) -> None:
        """Warn once if trials have been waiting for CPUs for a while, and none runs."""
        if self._running or not self.states.waiting():
            self._starved_since = time.monotonic()
        elif time.monotonic() - self._starved_since > PATIENCE_SECONDS:
            self._starved_since = float("inf")
            _LOG.warning(
                f"no trial has been running for {PATIENCE_SECONDS:.0f} s: {cpus} CPUs are there, "
                "and a trial has to wait for its workers' CPUs, or for a process in its folder"
            )

    def _stop_all(self) -> None:
        """Make all running trials save and stop."""
        for process in self._running:
            process.stop()
        for process in self._running:
            process.wait()
            self.states.ended(process.trial)
        self._running.clear()


def _check_placeable(base: TrainConfig) -> None:
    """Refuse trials that need more CPUs than there can be.

    Raises:
        UsageError: ``num_workers`` is too large.
    """
    each = base.num_workers
    if each == "auto":
        return
    if base.max_workers is not None and each > base.max_workers:
        raise UsageError(
            f"num_workers: a trial has {each} workers, but max_workers is {base.max_workers}"
        )
    if base.address is None and each > usable_cpus():
        raise UsageError(
            f"num_workers: a trial has {each} workers, but this machine has {usable_cpus()} CPUs"
        )
