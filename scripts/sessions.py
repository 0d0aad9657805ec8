"""Starts the ``train`` command as users do: with output to a file, a pipe, a disk or a terminal."""

import contextlib
import os
import select
import shlex
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time
from fcntl import ioctl
from pathlib import Path

import psutil
from faults import FaultError, descendants, is_alive, is_worker, send, until

CTRL_C, CTRL_Z = b"\x03", b"\x1a"
_DISK = 64 * 1024
"""Size in bytes of the small disk for a log."""
_ROWS, _COLUMNS = 50, 200
_SHELL = ("setsid", "--ctty", "bash", "--norc", "--noprofile", "--noediting", "-i")


class Session:
    """A run's command with its output in a file.

    Args:
        command: the command to start.
        folder: folder for its output and Ray's files.
        name: name of the output file.
    """

    prefix: tuple[str, ...] = ()

    def __init__(self, command: list[str], folder: Path, name: str) -> None:
        self.log = folder / f"{name}.log"
        self._environment = os.environ | {"RAY_TMPDIR": str(folder)}
        self._known: set[psutil.Process] = set()
        self._command = [*self.prefix, *command]
        self.learner = self._start()

    def _start(self) -> psutil.Process:
        with self.log.open("ab") as log:
            return self._popen(log.fileno(), log.fileno())

    def _popen(self, stdout: int, stderr: int) -> psutil.Process:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
        return psutil.Process(self._process.pid)

    @property
    def ended(self) -> bool:
        """Whether the command has ended."""
        return self._process.poll() is not None

    def lose_output(self) -> None:
        """Make the output unwritable; does nothing, as a file stays writable."""

    def wait(self, seconds: float) -> int:
        """Wait for the command; return its exit code, negative if a signal ended it.

        Raises:
            FaultError: it did not end within ``seconds``.
        """
        self.look()
        until(lambda: self.ended, "the command to end", seconds)
        return self._exit_code()

    def _exit_code(self) -> int:
        return self._process.wait()

    def look(self) -> list[psutil.Process]:
        """The run's current processes."""
        found = descendants(self.learner)
        self._known.update(found)
        return found

    def left(self) -> list[psutil.Process]:
        """Processes seen by :meth:`look` that are still alive."""
        return [p for p in self._known if is_alive(p)]

    def workers(self) -> list[psutil.Process]:
        """The run's workers."""
        return [p for p in self.look() if is_worker(p)]

    def text(self) -> str:
        """The output so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def close(self) -> None:
        """End the command if it has not ended."""
        self._end_all()
        self._process.wait()

    def _end_all(self) -> None:
        if not self.ended:
            for process in [self.learner, *self.look()]:
                send(process, signal.SIGKILL)
            until(lambda: self.ended, "the command to end")


class Nohup(Session):
    """A session that ignores the terminal's hang-up."""

    prefix = ("nohup",)


class Pipe(Session):
    """A session with stdout in a pipe, as in ``train | less``, and stderr in the file."""

    def _start(self) -> psutil.Process:
        self._reader, writer = os.pipe()
        try:
            with self.log.open("ab") as log:
                learner = self._popen(writer, log.fileno())
        finally:
            os.close(writer)
        self._drain = _Drain(self._reader, self.log)
        return learner

    def lose_output(self) -> None:
        """Close the pipe's reading end."""
        if not self._drain.stopped:
            self._drain.stop()
            os.close(self._reader)

    def close(self) -> None:
        """End the command if it has not ended."""
        super().close()
        self.lose_output()


class FullDisk(Session):
    """A session with its output on a small disk, or, without root, on ``/dev/full``."""

    def _start(self) -> psutil.Process:
        self._disk = self.log.with_suffix(".disk")
        self._disk.mkdir()
        options = ("-t", "tmpfs", "-o", f"size={_DISK}", "none", str(self._disk))
        mounted = subprocess.run([_tool("mount"), *options], capture_output=True, check=False)
        self._is_disk = mounted.returncode == 0
        self._file = self._disk / "log" if self._is_disk else Path("/dev/full")
        with self._file.open("ab") as log:
            return self._popen(log.fileno(), log.fileno())

    def lose_output(self) -> None:
        """Fill the disk completely."""
        if self._is_disk:
            with contextlib.suppress(OSError), (self._disk / "more").open("ab", 0) as file:
                while True:
                    file.write(bytes(4096))
            # The log's last page still has room.
            with contextlib.suppress(OSError), self._file.open("ab", 0) as file:
                while True:
                    file.write(b"\n")

    def text(self) -> str:
        """The output so far."""
        if self._is_disk and self._file.exists():
            self.log.write_bytes(self._file.read_bytes())
        return super().text()

    def close(self) -> None:
        """End the command if it has not ended, and unmount the disk."""
        super().close()
        self.text()
        if self._is_disk:
            subprocess.run([_tool("umount"), "--lazy", str(self._disk)], check=True)
            self._is_disk = False


class Terminal(Session):
    """A command typed into a shell in a terminal, where it shows its live panel."""

    typed = "(. {job})"

    def _start(self) -> psutil.Process:
        self._exit = self.log.with_suffix(".exit")
        job = self.log.with_suffix(".job")
        # The shell in between must survive to report the exit code. It traps the signals instead
        # of ignoring them, because the command would inherit ignored signals.
        job.write_text(
            f"trap : HUP INT TERM\n{shlex.join(self._command)}\necho $? > {self._exit}\n"
        )
        self._master, slave = os.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        environment = self._environment | {"TERM": "xterm", "PS1": "$ "}
        self._process = subprocess.Popen(
            [_tool(_SHELL[0]), *_SHELL[1:]],
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._drain = _Drain(self._master, self.log)
        self.press(self.typed.format(job=shlex.quote(str(job))).encode() + b"\n")
        shell = psutil.Process(self._process.pid)
        found: list[psutil.Process] = []

        def look() -> bool:
            found[:] = [p for p in descendants(shell) if _runs(p, self._command)]
            return bool(found)

        until(look, "the shell to start the command", poll=0.005)
        return found[0]

    @property
    def ended(self) -> bool:
        """Whether the command has ended."""
        return not is_alive(self.learner)

    def _exit_code(self) -> int:
        file = self._exit
        until(lambda: file.exists() and file.read_text() != "", "the shell to report the exit code")
        code = int(file.read_text())
        return code if code < 128 else 128 - code

    def press(self, keys: bytes) -> None:
        """Type keys into the terminal."""
        os.write(self._master, keys)

    def hang_up(self) -> None:
        """Close the terminal, like a dropped connection."""
        if not self._drain.stopped:
            self._drain.stop()
            os.close(self._master)

    def stop_and_continue(self, seconds: float) -> None:
        """Press Ctrl-Z, wait, and type ``fg``."""
        self.press(CTRL_Z)
        time.sleep(seconds)
        self.press(b"fg\n")

    def close(self) -> None:
        """End the command if it has not ended."""
        self._end_all()
        self.hang_up()
        self._process.kill()
        self._process.wait()


class Disowned(Terminal):
    """A terminal session in the background and disowned, so that it receives no hang-up."""

    typed = "(. {job}) & disown"

    def lose_output(self) -> None:
        """Close the terminal."""
        self.hang_up()


class _Drain:
    """Copies a descriptor to a file in a thread until it is stopped."""

    def __init__(self, source: int, to: Path) -> None:
        self._source = source
        self._to = to
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Stop and wait for the thread: a pending read would keep the source open."""
        self._stop.set()
        self._thread.join()

    def _copy(self) -> None:
        with self._to.open("ab", buffering=0) as file:
            while not self._stop.is_set():
                if not select.select([self._source], [], [], 0.05)[0]:
                    continue
                try:
                    data = os.read(self._source, 65536)
                except OSError:  # the terminal's other end is closed
                    return
                if not data:
                    return
                file.write(data)


def _runs(process: psutil.Process, command: list[str]) -> bool:
    try:
        return process.cmdline() == command
    except psutil.Error:
        return False


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise FaultError(f"there is no {name} here")
    return path
