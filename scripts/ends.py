"""Ends training runs at random moments in random ways, resumes them and compares their weights.

Used by ``python scripts/chaos.py --ends 300``. All runs have the same settings, so one run without
faults gives the expected weights of every update. A run's number is the seed of everything done to
it: ``--ends 1 --seed NUMBER`` repeats a run.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from ended_run import Ending, Run
from faults import (
    DEADLINE,
    FaultError,
    checksums,
    is_alive,
    last_update,
    send,
    title,
    until,
    write_record,
)
from sessions import Session
from ways import SETTINGS, UPDATES, USUAL_WAYS, train_command

from distributed_pg.system_info import library_versions

GONE_SECONDS = 120.0
"""Time for a run's processes to end: Ray's agents take more than a minute to give up."""


@dataclass(frozen=True)
class Plan:
    """What to do with how many runs."""

    ends: int
    """Number of runs to end."""
    seed: int
    """Number of the first run."""
    ways: Sequence[str]
    """The ways to choose from."""
    lanes: int
    """Number of runs at a time."""
    keep_going: bool
    """Whether to continue after a failed run."""
    folder: Path | None
    """Where to keep the folders of failed runs; None: nowhere."""


class Ends:
    """Ends runs and records the results.

    Args:
        plan: what to do.
        folder: temporary folder for the runs.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._stop = threading.Event()
        self._begin = time.monotonic()
        self.endings: list[Ending] = []
        self.expected: list[tuple[int, str]] = []
        self._start_seconds = 0.0
        self._left: dict[psutil.Process, int] = {}

    def whole_run(self) -> None:
        """Run once without faults, for the expected weights and the time to the first update.

        Raises:
            FaultError: the run failed.
        """
        begin, folder = time.monotonic(), self._folder / "whole"
        folder.mkdir()
        session = Session(train_command(folder / "run", 2), folder, "whole")
        try:
            until(lambda: last_update(folder / "run") > 0 or session.ended, "the first update")
            self._start_seconds = time.monotonic() - begin
            code = session.wait(DEADLINE)
        finally:
            session.close()
        self.expected = checksums(folder / "run")
        if code != 0 or len(self.expected) != UPDATES:
            raise FaultError(f"the run without faults failed: {code}\n{session.text()}")

    def all_runs(self) -> None:
        """End all runs, several at a time."""
        numbers = range(self._plan.seed, self._plan.seed + self._plan.ends)
        with ThreadPoolExecutor(self._plan.lanes) as lanes:
            runs = [lanes.submit(self._end_run, number) for number in numbers]
            try:
                for run in as_completed(runs):
                    run.result()
            finally:
                # After an interrupt, current runs still finish, because they must end processes.
                self._stop.set()

    def _end_run(self, number: int) -> None:
        if self._stop.is_set():
            return
        folder = self._folder / str(number)
        folder.mkdir()
        run = Run(number, self._plan.ways, folder, self._start_seconds, self.expected)
        failure = None
        try:
            run.do()
        except FaultError as error:
            failure = str(error)
        except (OSError, ValueError, LookupError, psutil.Error) as error:  # the other runs continue
            failure = repr(error)
        self._left.update((process, number) for process in run.left)
        ending = replace(run.ending, failure=failure)
        self.endings.append(ending)
        self._print(ending, run.tails() if failure else "")
        if failure and self._plan.folder is not None:
            sockets = shutil.ignore_patterns("sockets", "session_latest")
            to = self._plan.folder / str(number)
            shutil.copytree(folder, to, ignore=sockets, dirs_exist_ok=True)
        if failure and not self._plan.keep_going:
            self._stop.set()
        shutil.rmtree(folder, ignore_errors=True)

    def _print(self, ending: Ending, tails: str) -> None:
        also = f" and {ending.also}" if ending.also else ""
        line = (
            f"{time.monotonic() - self._begin:6.0f} s {len(self.endings):4}/{self._plan.ends} "
            f"run {ending.run} {ending.way}{also} ({ending.moment}) after update {ending.update}: "
            f"{ending.outcome} with {ending.code}, saved {ending.saved}, {ending.seconds:.0f} s"
        )
        if ending.failure is not None:
            line += f"\nFAILED: {ending.failure}\n{tails}\nagain: --ends 1 --seed {ending.run}"
            if list(self._plan.ways) != USUAL_WAYS:
                line += f" --ways {','.join(self._plan.ways)}"
        print(line, flush=True)

    def left_behind(self) -> list[str]:
        """Kill and list the processes that outlive their runs."""

        def gone() -> bool:
            self._left = {p: number for p, number in self._left.items() if is_alive(p)}
            return not self._left

        with contextlib.suppress(FaultError):
            until(gone, "the processes of all runs to end", GONE_SECONDS, poll=0.2)
        left = [f"run {number} left {title(p)}" for p, number in self._left.items()]
        for process in self._left:
            send(process, signal.SIGKILL)
        return left

    def record(self) -> dict[str, Any]:
        """The results of all runs."""
        left = self.left_behind()
        endings = sorted(self.endings, key=lambda ending: ending.run)
        good = [ending for ending in endings if ending.failure is None]
        not_killed = [e for e in endings if "sigkill" not in e.way + e.also]
        return {
            "cpus": os.cpu_count(),
            "lanes": self._plan.lanes,
            "versions": library_versions(),
            "settings": SETTINGS,
            "updates": UPDATES,
            "weights_checksum": self.expected[-1][1],
            "runs": len(endings),
            "same_bits": len(good) == self._plan.ends,
            "left_behind": left,
            "failures": len(endings) - len(good),
            "lost_updates_at_most": max((e.lost for e in not_killed), default=0),
            "lost_to_sigkill_at_most": max((e.lost for e in endings), default=0),
            "minutes": round((time.monotonic() - self._begin) / 60, 1),
            "moments": dict(sorted(Counter(e.moment for e in endings).items())),
            "also": dict(sorted(Counter(e.also for e in endings if e.also).items())),
            "ways": {name: _account(name, endings) for name in self._plan.ways},
            "endings": [asdict(ending) for ending in endings],
        }


def _account(way: str, endings: list[Ending]) -> dict[str, Any]:
    same_way = [ending for ending in endings if ending.way == way]
    return {
        "runs": len(same_way),
        "failures": sum(ending.failure is not None for ending in same_way),
        "lost_at_most": max((ending.lost for ending in same_way), default=0),
        "outcomes": dict(sorted(Counter(ending.outcome for ending in same_way).items())),
        "exit_codes": dict(sorted(Counter(str(ending.code) for ending in same_way).items())),
    }


def end_runs(plan: Plan, out: Path) -> bool:
    """Carry out ``plan`` and write the record to ``out``; return whether all went well."""
    with tempfile.TemporaryDirectory(prefix="ends-", ignore_cleanup_errors=True) as folder:
        ends = Ends(plan, Path(folder))
        ends.whole_run()
        try:
            ends.all_runs()
        finally:
            record = ends.record()
            write_record(out, record, ("endings",))
    print({name: record[name] for name in ("runs", "failures", "left_behind", "minutes")})
    return bool(record["same_bits"]) and not record["left_behind"]
