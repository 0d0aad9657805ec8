"""The ways in which ``ends.py`` ends training runs, and the settings of these runs."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from faults import AGENT, GCS, RAYLET, TRAIN, ray_process, send, until
from sessions import CTRL_C, Disowned, FullDisk, Nohup, Pipe, Session, Terminal

UPDATES, BATCH = 60, 2
HANG_SECONDS = 5.0
SETTINGS = (
    f"--batch-size {BATCH} --hidden-units 20 --frame-limit 600 --seed 5 --checkpoint-every 5 "
    f"--hang-seconds {HANG_SECONDS:g}"
)
MOMENTS = {"start": 4, "playing": 9, "saving": 5, "ending": 2}
"""When a run is ended, with relative frequencies: before the first update, between updates, while
it writes a checkpoint, and after the last update."""
ALSO = {
    "": 12,
    "worker_killed": 4,
    "raylet_killed": 1,
    "gcs_killed": 1,
    "stopped at once": 3,
    "sigkill at once": 1,
}
"""What else is done to a run that should continue, with relative frequencies: nothing, or something
before it can continue."""

Act = Callable[[Session, random.Random], None]


@dataclass(frozen=True)
class Way:
    """A way to end a run."""

    act: Act
    outputs: tuple[type[Session], ...] = (Session, Terminal)
    """Possible outputs of the run."""
    goes_on: bool = False
    """Whether the run should continue by itself; a signal stops it later."""
    codes: tuple[int, ...] = (0,)
    """Allowed exit codes of the command."""


def train_command(run: Path, workers: int) -> list[str]:
    """Return the command that starts the run, or resumes it if it exists."""
    target = ["--resume", str(run)]
    if not (run / "config.json").exists():
        target = ["--run-dir", str(run), *SETTINGS.split()]
    stop = str(UPDATES * BATCH)
    return [*TRAIN, *target, "--num-workers", str(workers), "--stop-episodes", stop]


def way_of(number: int, ways: Sequence[str]) -> str:
    """Choose a run's way: the runs cycle through ``ways``, in a new random order each cycle."""
    deal, place = divmod(number, len(ways))
    shuffled = random.Random(deal).sample(ways, len(ways))
    return shuffled[place]


def kill_worker(session: Session, _: random.Random) -> None:
    """Send SIGKILL to a worker, which makes the run print a warning."""
    _kill(session, lambda: next(iter(session.workers()), None))


def _kill_ray(name: str, session: Session, _: random.Random) -> None:
    """Send SIGKILL to a process of the run's Ray as soon as it exists."""
    _kill(session, lambda: ray_process(session.learner, name))


def _kill(session: Session, find: Callable[[], Any]) -> None:
    found: list[Any] = [None]

    def look() -> bool:
        found[0] = find()
        return found[0] is not None or session.ended

    until(look, "a process to kill")
    if found[0] is not None:
        session.look()
        send(found[0], signal.SIGKILL)


def _signal(number: signal.Signals, session: Session, _: random.Random) -> None:
    send(session.learner, number)


def _lose_output(session: Session, _: random.Random) -> None:
    session.lose_output()


def _press_ctrl_c(session: Session, _: random.Random) -> None:
    cast("Terminal", session).press(CTRL_C)


def _hang_up(session: Session, _: random.Random) -> None:
    cast("Terminal", session).hang_up()


def _ctrl_z_and_fg(session: Session, chance: random.Random) -> None:
    """Stop the learner and all its processes for longer than a worker may be silent."""
    cast("Terminal", session).stop_and_continue(HANG_SECONDS + chance.uniform(0.5, 1.5))


def _stand_still(session: Session, chance: random.Random) -> None:
    """Stop the learner, but not its workers, for longer than a worker may be silent."""
    send(session.learner, signal.SIGSTOP)
    time.sleep(HANG_SECONDS + chance.uniform(0.5, 1.5))
    send(session.learner, signal.SIGCONT)


WAYS = {
    "sigterm": Way(partial(_signal, signal.SIGTERM)),
    "sigusr1": Way(partial(_signal, signal.SIGUSR1)),
    "sigusr2": Way(partial(_signal, signal.SIGUSR2)),
    "sighup": Way(partial(_signal, signal.SIGHUP)),
    "sigkill": Way(partial(_signal, signal.SIGKILL), codes=(-signal.SIGKILL, 0)),
    "ctrl_c": Way(_press_ctrl_c, (Terminal,)),
    "hang_up": Way(_hang_up, (Terminal,)),
    "nohup": Way(partial(_signal, signal.SIGHUP), (Nohup,), goes_on=True),
    "disowned": Way(_lose_output, (Disowned,), goes_on=True),
    "closed_pipe": Way(_lose_output, (Pipe,), goes_on=True),
    "full_log": Way(_lose_output, (FullDisk,), goes_on=True),
    "ctrl_z": Way(_ctrl_z_and_fg, (Terminal,), goes_on=True),
    "learner_stopped": Way(_stand_still, goes_on=True),
    "raylet_killed": Way(partial(_kill_ray, RAYLET), goes_on=True, codes=(0, 1)),
    "gcs_killed": Way(partial(_kill_ray, GCS), goes_on=True, codes=(0, 1)),
    "agent_killed": Way(partial(_kill_ray, AGENT), goes_on=True, codes=(0, 1)),
}
"""All ways. A learner whose Ray dies continues with a new one, or gives up with a message."""
USUAL_WAYS = [name for name in WAYS if name != "agent_killed"]
"""The ways that a run always survives. A raylet that has lost its agent may be quicker than the
learner, and then Ray ends the learner; see ProcessWatch."""
