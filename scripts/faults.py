"""What breaks a training run, and what tells how it stands: for ``chaos.py`` and ``ends.py``."""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from distributed_pg.own_code import own_command
from distributed_pg.storage.checkpoint_files import CHECKPOINTS
from distributed_pg.storage.metrics import METRICS, read_metrics

TRAIN = own_command("train")
DEADLINE = 180.0
"""Seconds in which a run must recover from anything."""
POLL = 0.02
LOST_AT_MOST = 1
"""Updates that an end other than SIGKILL may cost."""
RAYLET, GCS, AGENT = "raylet", "gcs_server", "ray::RuntimeEnvAgent"
"""Names of the processes that Ray starts for a run of its own."""
_TAIL = 50_000
"""Bytes at the end of a metrics.jsonl that are sure to hold a whole line."""


class FaultError(Exception):
    """The run did not do what it must; the text says what."""


def until(
    condition: Callable[[], bool], what: str, seconds: float = DEADLINE, poll: float = POLL
) -> None:
    """Wait for ``condition``.

    Raises:
        FaultError: it did not hold within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise FaultError(f"waited {seconds:.0f} s for {what}")
        time.sleep(poll)


def last_update(run: Path) -> int:
    """The last update in the run's metrics; 0: none."""
    try:
        with (run / METRICS).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-1])["update"]) if lines else 0


def newest_checkpoint(run: Path) -> Path | None:
    """The run's newest checkpoint, if it has one."""
    return max((run / CHECKPOINTS).glob("update-*.safetensors"), default=None)


def update_of(checkpoint: Path) -> int:
    """How many updates had been made when a checkpoint was written."""
    return int(checkpoint.stem.partition("-")[2])


def lost_updates(run: Path, seen: int = 0) -> int:
    """Updates that were made and are in no checkpoint.

    Args:
        run: the run's folder.
        seen: the last update that was in the metrics some time before.
    """
    newest = newest_checkpoint(run)
    made = max(last_update(run), seen)
    return max(0, made - (0 if newest is None else update_of(newest)))


def is_saving(run: Path) -> bool:
    """Whether a checkpoint is being written at this moment."""
    return any((run / CHECKPOINTS).glob(".*.tmp"))


def checksums(run: Path) -> list[tuple[int, str]]:
    """Each update in the run's metrics, and the checksum of the weights after it."""
    return [(line["update"], line["weights_checksum"]) for line in read_metrics(run / METRICS)]


def difference(ours: list[tuple[int, str]], expected: list[tuple[int, str]]) -> str | None:
    """Where two lists of :func:`checksums` differ first, in one line; None: nowhere."""
    for one, other in zip(ours, expected, strict=False):
        if one != other:
            return f"update {one[0]} gave {one[1]}, where update {other[0]} gives {other[1]}"
    if len(ours) != len(expected):
        return f"{len(ours)} updates, not {len(expected)}"
    return None


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """The processes that it and they started, those left out that have ended."""
    try:
        return [p for p in process.children(recursive=True) if is_alive(p)]
    except psutil.Error:
        return []


def is_alive(process: psutil.Process) -> bool:
    """Whether it has not ended; one that nobody has asked for its exit code has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def ray_process(learner: psutil.Process, name: str) -> psutil.Process | None:
    """One of the processes of the learner's own Ray, if it has it now."""
    return next((p for p in descendants(learner) if title(p).startswith(name)), None)


def title(process: psutil.Process) -> str:
    """What the process calls itself: Ray writes into its command line what it does."""
    try:
        return process.name() if process.name() in (RAYLET, GCS) else " ".join(process.cmdline())
    except psutil.Error:
        return ""


def plays(process: psutil.Process) -> bool:
    """Whether it is a worker in the middle of an episode, and not stopped."""
    try:
        stopped = process.status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False
    return not stopped and "RolloutWorker.play" in title(process)


def is_worker(process: psutil.Process) -> bool:
    """Whether it is a worker, playing or not."""
    return title(process).startswith("ray::RolloutWorker")


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal; nothing happens if the process has ended."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        print(f"process {process.pid} had ended already", flush=True)


def write_record(path: Path, record: Mapping[str, Any], tables: tuple[str, ...]) -> None:
    """Write a record as JSON; each row of ``tables`` takes one line."""
    plain = json.dumps({k: v for k, v in record.items() if k not in tables}, indent=1)
    parts = [plain.removesuffix("\n}")]
    for name in tables:
        rows = ",\n".join(f"  {json.dumps(row)}" for row in record[name])
        parts.append(f' "{name}": [\n{rows}\n ]')
    path.write_text(",\n".join(parts) + "\n}\n")
