"""Runs ``distributed-pg train`` as users do, in a process and a folder of its own."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from distributed_pg.errors import RunError, one_line
from distributed_pg.own_code import own_command
from distributed_pg.storage.metrics import METRICS, last_record


def train(*flags: str, what: str) -> dict[str, Any] | None:
    """Train with these flags.

    Args:
        flags: those of ``train``, without its folder, which is deleted at the end.
        what: what the run is, for the message.

    Returns:
        The last line of its metrics; None if it ended before the first update.

    Raises:
        RunError: the run failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        output_of(own_command("train", *flags, "--run-dir", str(run)), what)
        return last_record(run / METRICS)


def output_of(command: list[str], what: str) -> str:
    """The standard output of a command.

    Raises:
        RunError: the command failed; the message begins with ``what``.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RunError(f"{what} failed: {one_line(done.stderr)}")
    return done.stdout
