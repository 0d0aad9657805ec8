"""One training run that is ended at a random moment in a random way, resumed and compared."""

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
"""Updates that a run must make to have gone on."""
_TAIL = 1500
"""Characters of a log that a failure shows."""
_SHOWN_OVER = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|[\u2800-\u28ff\r]")
"""What a terminal shows over what was there: escape codes and a curve's dots."""
_RAYS_LAST_WORDS = "Worker will terminate"
"""What Ray says when it ends the process because its raylet died while it was connecting."""
_SAVE_AND_STOP = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@dataclass(frozen=True)
class Ending:
    """What was done to a run, and what came of it."""

    run: int
    """Its number: the seed of all that happened to it."""
    way: str
    moment: str
    also: str
    """What else was done to it; empty: nothing."""
    update: int = 0
    """Its last update at that moment."""
    saved: int | None = None
    """The newest checkpoint's update after the end; None: there was none yet."""
    lost: int = 0
    """Updates that were made and were in no checkpoint then."""
    code: int | None = None
    """The command's exit code; negative: a signal ended it."""
    outcome: str = ""
    """What the run did: stopped, went on, gave up, finished before, had not begun."""
    seconds: float = 0.0
    """From its start to the end of the resumed part."""
    failure: str | None = None
    """What it should not have done."""


class Run:
    """One run: started, ended in some way, resumed, compared.

    Args:
        number: its number.
        ways: the ways to choose from.
        folder: where it is kept.
        start_seconds: how long a run takes to its first update.
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
        """Processes that had not ended when their command had."""

    def do(self) -> None:
        """Everything; :attr:`ending` says more and more about it.

        Raises:
            FaultError: something was not as it must be.
        """
        begin = time.monotonic()
        command = train_command(self._run, self._workers)
        self.session = self._output(command, self._folder, "first")
        try:
            self._wait_for_moment()
            self._say(update=last_update(self._run))
            self._way.act(self.session, self._chance)
            outcome = self._go_on() if self._way.goes_on else "stopped"
            code = self.session.wait(DEADLINE)
            self._look_at_end(outcome, code)
            self._close()
            self._resume()
            self._compare()
        finally:
            self._close()
            self._say(seconds=round(time.monotonic() - begin, 1))

    def _close(self) -> None:
        self.session.close()
        self.left += self.session.left()

    def _wait_for_moment(self) -> None:
        """Wait until it is time; or until the command has ended by itself."""
        moment, chance = self.ending.moment, self._chance
        if moment == "start":
            self._sleep(chance.random() * self._start_seconds)
        elif moment == "playing":
            self._wait_for_update(chance.randint(1, UPDATES - 5))
            self._sleep(chance.uniform(0.0, 0.3))
        elif moment == "saving":
            self._wait_for_update(chance.randint(1, UPDATES // 2))
            ended = self.session
            until(lambda: is_saving(self._run) or ended.ended, "a checkpoint", poll=0.0)
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
        """See the run go on, unless it is to be ended at once, and end it."""
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
        """Whether the command ended as it may, and saved what it had learned."""
        before, newest = self.ending.update, newest_checkpoint(self._run)
        saved = None if newest is None else update_of(newest)
        lost = lost_updates(self._run, before)
        self._say(code=code, saved=saved, lost=lost, outcome=outcome)
        killed = self.ending.way == "sigkill" or self.ending.also == "sigkill at once"
        if saved is None and last_update(self._run) == 0 and code != 0:
            # No signal handler yet, or no folder. There is nothing that could be lost.
            self._say(outcome="had not begun")
            return
        if saved == UPDATES and (code == 0 or code < 0):
            # All is done and saved; a signal finds a command that is about to exit.
            self._say(outcome="finished before")
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
        said_why = "distributed-pg: error: " in text or _RAYS_LAST_WORDS in text
        if code == 1 and not said_why and self._can_print():
            raise FaultError("it exited with 1 and did not say why")
        if self.ending.way in ("ctrl_z", "learner_stopped") and "is replaced" in text:
            raise FaultError("it replaced a worker though it stood still itself")
        if newest is not None:
            self._look_at_checkpoint(newest)

    def _can_print(self) -> bool:
        return not isinstance(self.session, FullDisk | Disowned)

    def _look_at_checkpoint(self, path: Path) -> None:
        """Whether the newest checkpoint is whole and holds the right weights."""
        try:
            checksum = weights_checksum(load_checkpoint(path).state.policy)
        except RunError as error:
            raise FaultError(f"the newest checkpoint is not good: {error}") from error
        made = update_of(path)
        if made and checksum != self._expected[made - 1][1]:
            raise FaultError(f"the checkpoint of update {made} holds {checksum}")

    def _resume(self) -> None:
        """Go on to the end with another number of workers."""
        if newest_checkpoint(self._run) is None and self._run.exists():
            shutil.rmtree(self._run)  # killed before there was anything to go on with
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

    def _say(self, **changes: Any) -> None:
        self.ending = replace(self.ending, **changes)

    def tails(self) -> str:
        """The ends of the run's logs."""
        tails = []
        for log in sorted(self._folder.glob("*.log")):
            text = plain(log.read_text(errors="replace"))
            tails.append(f"--- {log.name}:\n{text[-_TAIL:]}")
        return "\n".join(tails)


def plain(log: str) -> str:
    """What a terminal showed, each line once."""
    lines = _SHOWN_OVER.sub("", log).split("\n")
    return "\n".join(dict.fromkeys(line.rstrip() for line in lines))
