"""A process that trains one trial: ``distributed-pg train`` on the sweep's Ray."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from distributed_pg.errors import one_line, writing
from distributed_pg.own_code import own_command
from distributed_pg.sweep.folder import SweepFolder
from distributed_pg.sweep.plan import Trial, resume_flags, trial_flags

END_SECONDS = 60.0
"""Time a trial has to save and end when it is asked to; then it is killed."""
_OUTPUT_BYTES = 4096
_CREATION_FLAGS = 0
if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP  # start_new_session does nothing there
_ERROR = "distributed-pg: error: "


class TrialProcess:
    """A running trial.

    It is the ordinary command with the trial's settings, so the trial has the bits of that run
    alone. It saves and stops when this process ends. Its process group is its own: Ctrl-C reaches
    the sweep, which then asks its trials to save and stop.

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
            settings = ["--resume", run, *resume_flags(trial)]
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
                creationflags=_CREATION_FLAGS,
            )

    def stop(self) -> None:
        """Ask the trial to save and stop."""
        if not self.asked_to_stop:
            self.asked_to_stop = True
            self._kill_at = time.monotonic() + END_SECONDS
            if sys.platform == "win32":
                self._process.send_signal(signal.CTRL_BREAK_EVENT)
            else:
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
        """Why an ended trial failed: its error message, or how it was ended."""
        code = self._process.returncode
        if code < 0:
            return f"killed by {_signal_name(-code)}"
        lines = [line for line in self._output() if line.strip()]
        # Ray may print something after the message.
        errors = [line for line in lines if line.startswith(_ERROR)]
        *_, last = "", *lines, *errors
        return one_line(last.removeprefix(_ERROR)) or f"exit code {code}"

    def _output(self) -> list[str]:
        """The last lines that the process has printed; none if the log cannot be read."""
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_from, size - _OUTPUT_BYTES))
                return file.read().decode(errors="replace").split("\n")
        except OSError:
            return []


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
