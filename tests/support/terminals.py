"""Runs a command in a separate terminal, for tests."""

import os
import pty
import select
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path


class Terminal:
    """Runs a command as the leader of a session with this terminal."""

    def __init__(self, command: Sequence[str], cwd: Path, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self._shown = b""
        self._closing = threading.Event()
        self.process = subprocess.Popen(
            ["/usr/bin/setsid", "--ctty", *command],
            cwd=cwd,
            env=os.environ | environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def shown(self) -> bytes:
        """The output so far."""
        return self._shown

    def press(self, keys: bytes) -> None:
        """Type keys."""
        os.write(self._master, keys)

    def close(self) -> None:
        """Close the terminal; the command receives SIGHUP."""
        self._closing.set()
        self._reader.join()
        os.close(self._master)

    def end(self, timeout: float) -> bytes:
        """Wait for the command to end; return its output."""
        self.process.wait(timeout)
        self.close()
        return self._shown

    def _read(self) -> None:
        while True:
            closing = self._closing.is_set()
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self._shown += os.read(self._master, 65536)
                except OSError:  # no process has the other end open
                    return
            elif closing:
                return
