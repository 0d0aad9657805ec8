"""A process that trains one trial: ``distributed-pg train`` on the sweep's Ray."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from distributed_pg.config import STOP_CONDITIONS, as_flags
from distributed_pg.errors import RunError, one_line, writing
from distributed_pg.own_code import own_command
from distributed_pg.sweep.folder import SweepFolder
from distributed_pg.sweep.plan import Trial, trial_flags

END_SECONDS = 60.0
"""Time a trial has to save and end when it is asked to; then it is killed."""
_OUTPUT_BYTES = 4096


class TrialProcess:
    """A running trial.

    It is the ordinary command with the trial's settings, so the trial has the bits of that run
    alone. Its process group is its own: Ctrl-C reaches the sweep, which then asks its trials to
    save and stop.

    Args:
        trial: the trial.
        workers: its number of workers.
        folder: the sweep's folder.
        address: the address of the Ray cluster.
        environment: variables that the process needs to connect to it.

    Raises:
        RunError: its log cannot be written, or the process cannot be started.
    """

    def __init__(
        self,
        trial: Trial,
        workers: int,
        folder: SweepFolder,
        address: str,
        environment: Mapping[str, str],
    ) -> None:
        self.trial = trial
        self.workers = workers
        self.asked_to_stop = False
        self._kill_at = float("inf")
        run, log = str(folder.run_of(trial)), folder.log_of(trial)
        if folder.has_begun(trial):
            stops = {name: getattr(trial.config, name) for name in STOP_CONDITIONS}
            settings = ["--resume", run, *as_flags(stops)]
        else:
            folder.clear(trial)
            settings = ["--run-dir", run, *trial_flags(trial)]
        place = ["--address", address, "--num-workers", str(workers), "--quiet"]
        command = own_command("train", *settings, *place, end_with_parent=True)
        with writing(f"{log}:"), log.open("ab") as output:
            self._log, self._log_from = log, output.tell()
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(environment),
                start_new_session=True,
            )

    def stop(self) -> None:
        """Ask the trial to save and stop."""
        if not self.asked_to_stop:
            self.asked_to_stop = True
            self._kill_at = time.monotonic() + END_SECONDS
            self._process.send_signal(signal.SIGTERM)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the trial is running."""
        if time.monotonic() > self._kill_at:
            self._process.kill()
        return self._process.poll()

    def wait(self) -> None:
        """Wait until the trial has saved and stopped, for :data:`END_SECONDS` at most."""
        self.stop()
        try:
            self._process.wait(max(0.0, self._kill_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def failure(self) -> str:
        """Why an ended trial failed: the last line of its output, or how it was ended."""
        code = self._process.returncode
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        lines = _end_of(self._log, self._log_from).split("\n")
        line = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
        return one_line(line.removeprefix("distributed-pg: error: "))


def _end_of(log: Path, begin: int) -> str:
    """The last text of a log, not before an offset."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(begin, size - _OUTPUT_BYTES))
            return file.read().decode(errors="replace")
    except OSError as error:
        raise RunError(f"{log}: cannot be read ({error.strerror})") from None
