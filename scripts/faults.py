"""Helpers to break and inspect training runs, for ``chaos.py`` and ``ends.py``."""

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
"""Seconds within which a run must recover from any fault."""
POLL = 0.02
LOST_AT_MOST = 1
"""Maximum number of updates lost by any end except SIGKILL."""
RAYLET, GCS, AGENT = "raylet", "gcs_server", "ray::RuntimeEnvAgent"
"""Names of processes of a local Ray."""
HOLDER = "ray::WeightsHolder"
"""Name of the process that puts the weights into the object store."""
_TAIL = 50_000
"""Bytes at the end of a metrics.jsonl that are certain to contain a full line."""


class FaultError(Exception):
    """The run misbehaved; the text says how."""


def until(
    condition: Callable[[], bool], what: str, seconds: float = DEADLINE, poll: float = POLL
) -> None:
    """Wait for ``condition``, which the error message calls ``what``.

    Raises:
        FaultError: it did not hold within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise FaultError(f"waited {seconds:.0f} s for {what}")
        time.sleep(poll)


def last_update(run: Path) -> int:
    """The last update in the run's metrics; 0 if there is none."""
    try:
        with (run / METRICS).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-1])["update"]) if lines else 0


def newest_checkpoint(run: Path) -> Path | None:
    """The run's newest checkpoint; None if it has none."""
    return max((run / CHECKPOINTS).glob("update-*.safetensors"), default=None)


def update_of(checkpoint: Path) -> int:
    """The number of updates in a checkpoint."""
    return int(checkpoint.stem.partition("-")[2])


def lost_updates(run: Path, seen: int = 0) -> int:
    """The number of updates made that are in no checkpoint.

    Args:
        run: the run's folder.
        seen: the last update seen in the metrics earlier.
    """
    newest = newest_checkpoint(run)
    made = max(last_update(run), seen)
    return max(0, made - (0 if newest is None else update_of(newest)))


def is_saving(run: Path) -> bool:
    """Whether a checkpoint is being written now."""
    return any((run / CHECKPOINTS).glob(".*.tmp"))


def checksums(run: Path) -> list[tuple[int, str]]:
    """Each update in the run's metrics with the checksum of the weights after it."""
    return [(line["update"], line["weights_checksum"]) for line in read_metrics(run / METRICS)]


def difference(ours: list[tuple[int, str]], expected: list[tuple[int, str]]) -> str | None:
    """Describe the first difference between two lists of :func:`checksums`; None if equal."""
    for mine, right in zip(ours, expected, strict=False):
        if mine != right:
            return f"update {mine[0]} gave {mine[1]}, where update {right[0]} gives {right[1]}"
    if len(ours) != len(expected):
        return f"{len(ours)} updates, not {len(expected)}"
    return None


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """All live descendants of a process."""
    try:
        return [p for p in process.children(recursive=True) if is_alive(p)]
    except psutil.Error:
        return []


def is_alive(process: psutil.Process) -> bool:
    """Whether a process has not ended; a zombie has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def ray_process(learner: psutil.Process, name: str) -> psutil.Process | None:
    """A process of the learner's local Ray by name; None if it is not running."""
    return next((p for p in descendants(learner) if title(p).startswith(name)), None)


def title(process: psutil.Process) -> str:
    """The title of a process: Ray writes what it does into its command line."""
    try:
        return process.name() if process.name() in (RAYLET, GCS) else " ".join(process.cmdline())
    except psutil.Error:
        return ""


def plays(process: psutil.Process) -> bool:
    """Whether a process is a worker that is playing an episode and not stopped."""
    try:
        stopped = process.status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False
    return not stopped and "RolloutWorker.play" in title(process)


def is_worker(process: psutil.Process) -> bool:
    """Whether a process is a worker, playing or not."""
    return title(process).startswith("ray::RolloutWorker")


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal; does nothing if the process has ended."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        print(f"process {process.pid} had ended already", flush=True)


def write_record(path: Path, record: Mapping[str, Any], tables: tuple[str, ...]) -> None:
    """Write a record as JSON with one line per row of ``tables``."""
    plain = json.dumps({k: v for k, v in record.items() if k not in tables}, indent=1)
    parts = [plain.removesuffix("\n}")]
    for name in tables:
        rows = ",\n".join(f"  {json.dumps(row)}" for row in record[name])
        parts.append(f' "{name}": [\n{rows}\n ]')
    path.write_text(",\n".join(parts) + "\n}\n")
