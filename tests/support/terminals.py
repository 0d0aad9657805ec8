"""A command in a terminal of its own, for tests."""

import os
import pty
import select
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path


class Terminal:
    """Runs a command as the leader of a session whose terminal this is."""

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

    def press(self, keys: bytes) -> None:
        """Type something."""
        os.write(self._master, keys)

    def close(self) -> None:
        """Close the terminal's window: the command gets a hang-up."""
        self._closing.set()
        self._reader.join()
        os.close(self._master)

    def end(self, timeout: float) -> bytes:
        """Wait until the command has ended; returns all that was shown."""
        self.process.wait(timeout)
        self.close()
        return self._shown

    def _read(self) -> None:
        while True:
            closing = self._closing.is_set()
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self._shown += os.read(self._master, 65536)
                except OSError:  # nobody has it open at the other side any more
                    return
            elif closing:
                return
