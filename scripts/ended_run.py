"""Ends a training run at a random moment in a random way, resumes it and compares its weights."""

import random
import re
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from faults import (
    DEADLINE,
    LOST_AT_MOST,
    FaultError,
    checksums,
    difference,
    is_saving,
    last_update,
    lost_updates,
    newest_checkpoint,
    send,
    until,
    update_of,
)
from sessions import Disowned, FullDisk, Nohup, Session
from ways import ALSO, MOMENTS, UPDATES, WAYS, kill_worker, train_command, way_of

from distributed_pg.errors import RunError
from distributed_pg.storage.checkpoint import load_checkpoint, weights_checksum

FURTHER = 2
"""Updates that a run must make to count as having continued."""
_TAIL = 1500
"""Number of log characters printed for a failure."""
_SHOWN_OVER = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|[\u2800-\u28ff\r]")
"""Parts of a terminal's output that overwrite others: escape codes and a curve's dots."""
_RAYS_LAST_WORDS = "Worker will terminate"
"""Ray's message when it ends a process whose raylet died while the process was connecting."""
_SAVE_AND_STOP = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@dataclass(frozen=True)
class Ending:
    """What was done to a run, and the result."""

    run: int
    """The run's number: the seed of everything done to it."""
    way: str
    moment: str
    also: str
    """What else was done to it; empty if nothing."""
    update: int = 0
    """The run's last update at that moment."""
    saved: int | None = None
    """Update of the newest checkpoint at the end; None if there was none."""
    lost: int = 0
    """Updates made that were in no checkpoint."""
    code: int | None = None
    """Exit code of the command; negative if a signal ended it."""
    outcome: str = ""
    """How the run reacted: stopped, went on, gave up, finished before, had not begun."""
    seconds: float = 0.0
    """From the start of the run to the end of its resumed part."""
    failure: str | None = None
    """What the run did wrong; None if nothing."""


class Run:
    """A run that is started, ended in some way, resumed and compared.

    Args:
        number: number of the run, its seed.
        ways: the ways to choose from.
        folder: folder for its files.
        start_seconds: time a run takes to its first update.
        expected: the checksums of all updates.
    """

    def __init__(
        self,
        number: int,
        ways: Sequence[str],
        folder: Path,
        start_seconds: float,
        expected: list[tuple[int, str]],
    ) -> None:
        self._chance = random.Random(number)
        name = way_of(number, ways)
        self._way = WAYS[name]
        moment = self._chance.choices(list(MOMENTS), list(MOMENTS.values()))[0]
        also = self._chance.choices(list(ALSO), list(ALSO.values()))[0] if self._way.goes_on else ""
        self.ending = Ending(number, name, moment, also)
        self._folder = folder
        self._run = folder / "run"
        self._start_seconds = start_seconds
        self._expected = expected
        self._codes = set(self._way.codes)
        self._workers = self._chance.choice((1, 2))
        self._output = self._chance.choice(self._way.outputs)
        self.left: list[psutil.Process] = []
        """Processes still alive after their command ended."""

    def do(self) -> None:
        """Do it all, filling in :attr:`ending` on the way.

        Raises:
            FaultError: the run misbehaved.
        """
        begin = time.monotonic()
        command = train_command(self._run, self._workers)
        self.session = self._output(command, self._folder, "first")
        try:
            self._wait_for_moment()
            self._note(update=last_update(self._run))
            self._way.act(self.session, self._chance)
            outcome = self._go_on() if self._way.goes_on else "stopped"
            code = self.session.wait(DEADLINE)
            self._look_at_end(outcome, code)
            self._close()
            self._resume()
            self._compare()
        finally:
            self._close()
            self._note(seconds=round(time.monotonic() - begin, 1))

    def _close(self) -> None:
        self.session.close()
        self.left += self.session.left()

    def _wait_for_moment(self) -> None:
        """Wait for the moment to end the run, or until the command has ended by itself."""
        moment, chance = self.ending.moment, self._chance
        if moment == "start":
            self._sleep(chance.random() * self._start_seconds)
        elif moment == "playing":
            self._wait_for_update(chance.randint(1, UPDATES - 5))
            self._sleep(chance.uniform(0.0, 0.3))
        elif moment == "saving":
            self._wait_for_update(chance.randint(1, UPDATES // 2))
            session = self.session
            until(lambda: is_saving(self._run) or session.ended, "a checkpoint", poll=0.0)
        else:
            self._wait_for_update(UPDATES)
            self._sleep(chance.random())

    def _wait_for_update(self, update: int) -> None:
        session = self.session
        until(
            lambda: last_update(self._run) >= update or session.ended, f"update {update}", poll=0.01
        )

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        until(lambda: time.monotonic() > end or self.session.ended, "a moment", poll=0.01)

    def _go_on(self) -> str:
        """Check that the run continues, unless it is to be ended at once, and end it."""
        also, at_once = self.ending.also, self.ending.also.endswith("at once")
        if at_once:
            self._sleep(self._chance.uniform(0.0, 3.0))
        elif also == "worker_killed":
            kill_worker(self.session, self._chance)
        elif also:
            WAYS[also].act(self.session, self._chance)
            self._codes |= set(WAYS[also].codes)
        before = last_update(self._run)
        if not at_once:
            self._wait_for_update(min(UPDATES, before + FURTHER))
        ended_before = self.session.ended
        number = self._chance.choice(_SAVE_AND_STOP)
        if isinstance(self.session, Nohup | Disowned) and number == signal.SIGHUP:
            number = signal.SIGTERM
        if also == "sigkill at once":
            number = signal.SIGKILL
            self._codes = {-signal.SIGKILL, *self._codes}
        send(self.session.learner, number)
        went_on = not at_once and last_update(self._run) >= before + FURTHER
        if ended_before and last_update(self._run) < UPDATES:
            return "gave up"
        return "went on" if went_on else "stopped"

    def _look_at_end(self, outcome: str, code: int) -> None:
        """Check that the command ended as allowed and saved what it had learned."""
        before, newest = self.ending.update, newest_checkpoint(self._run)
        saved = None if newest is None else update_of(newest)
        lost = lost_updates(self._run, before)
        self._note(code=code, saved=saved, lost=lost, outcome=outcome)
        killed = self.ending.way == "sigkill" or self.ending.also == "sigkill at once"
        if saved is None and last_update(self._run) == 0 and code != 0:
            # No signal handler or no folder yet; there is nothing to lose.
            self._note(outcome="had not begun")
            return
        if saved == UPDATES and (code == 0 or code < 0):
            # All is saved; the signal came when the command was about to exit.
            self._note(outcome="finished before")
            code = 0
        if self.ending.outcome == "gave up" and code != 1:
            raise FaultError(f"it ended by itself, with {code}")
        if code not in self._codes:
            raise FaultError(f"it exited with {code}; allowed: {sorted(self._codes)}")
        if lost > LOST_AT_MOST and not killed:
            raise FaultError(f"{lost} updates are lost: {before} were made, {saved} are saved")
        text = self.session.text()
        if "Traceback (most recent call last)" in text:
            raise FaultError("it printed a traceback")
        explained = "distributed-pg: error: " in text or _RAYS_LAST_WORDS in text
        if code == 1 and not explained and self._can_print():
            raise FaultError("it exited with 1 and did not say why")
        if self.ending.way in ("ctrl_z", "learner_stopped") and "is replaced" in text:
            raise FaultError("it replaced a worker though it stood still itself")
        if newest is not None:
            self._look_at_checkpoint(newest)

    def _can_print(self) -> bool:
        return not isinstance(self.session, FullDisk | Disowned)

    def _look_at_checkpoint(self, path: Path) -> None:
        """Check that the newest checkpoint is intact and holds the right weights."""
        try:
            checksum = weights_checksum(load_checkpoint(path).state.policy)
        except RunError as error:
            raise FaultError(f"the newest checkpoint is not good: {error}") from error
        made = update_of(path)
        if made and checksum != self._expected[made - 1][1]:
            raise FaultError(f"the checkpoint of update {made} holds {checksum}")

    def _resume(self) -> None:
        """Resume with another number of workers and run to the end."""
        if newest_checkpoint(self._run) is None and self._run.exists():
            shutil.rmtree(self._run)  # killed before there was anything to resume
        workers = 3 - self._workers
        self.session = Session(train_command(self._run, workers), self._folder, "second")
        code = self.session.wait(DEADLINE)
        if code != 0:
            raise FaultError(f"resumed, it exited with {code}")

    def _compare(self) -> None:
        found = difference(checksums(self._run), self._expected)
        if found is not None:
            raise FaultError(f"other bits: {found}")
        newest = newest_checkpoint(self._run)
        if newest is None or update_of(newest) != UPDATES:
            raise FaultError(f"at the end the newest checkpoint is {newest}")
        self._look_at_checkpoint(newest)

    def _note(self, **changes: Any) -> None:
        self.ending = replace(self.ending, **changes)

    def tails(self) -> str:
        """The ends of the run's logs."""
        tails = []
        for log in sorted(self._folder.glob("*.log")):
            text = plain(log.read_text(errors="replace"))
            tails.append(f"--- {log.name}:\n{text[-_TAIL:]}")
        return "\n".join(tails)


def plain(log: str) -> str:
    """The text that a terminal showed, each line once."""
    lines = _SHOWN_OVER.sub("", log).split("\n")
    return "\n".join(dict.fromkeys(line.rstrip() for line in lines))
