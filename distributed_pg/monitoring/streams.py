"""Standard output and standard error, whatever becomes of those who read them.

A reader may go, a disk may fill up, a terminal may be closed or unable to show a character. Nothing
of that may harm a run, or show up as a traceback.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from distributed_pg.errors import RunError, one_line


class OutputError(RunError):
    """Standard output cannot be written."""

    def __init__(self, error: OSError) -> None:
        reason = error.strerror or one_line(error)
        super().__init__(f"standard output cannot be written ({reason})")
        # Windows says EINVAL of a pipe that nobody reads.
        gone = errno.EINVAL if sys.platform == "win32" else errno.EPIPE
        self.reader_gone = error.errno == gone


class _Stream:
    """A text stream that says in an OutputError that it cannot be written.

    Everything but writing is left to ``stream``. ``forgiving``: it loses the text instead.
    """

    def __init__(self, stream: TextIO, *, forgiving: bool) -> None:
        self._stream = stream
        self._forgiving = forgiving

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._failures():
            return self._stream.write(text)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        with self._failures():
            self._stream.flush()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            abandon(self._stream)
            if not self._forgiving:
                raise OutputError(error) from error


@contextmanager
def checked_streams() -> Iterator[None]:
    """Have ``sys.stdout`` raise OutputError, and ``sys.stderr`` lose what nobody can read.

    Characters that a terminal's encoding lacks are replaced. Whoever could not write the first time
    writes to nowhere from then on.
    """
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    # Python has none where the descriptor was closed.
    out, error = (stream or io.StringIO() for stream in before)
    for stream in (out, error):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.stdout = cast("TextIO", _Stream(out, forgiving=False))
    sys.stderr = cast("TextIO", _Stream(error, forgiving=True))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def abandon(stream: TextIO) -> None:
    """Have what was written to ``stream``, and what will be, go nowhere.

    Otherwise Python would try it again at its end, and complain.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # no file of the system's, or closed
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _fill_descriptors() -> None:
    """Let 0, 1 and 2 lead to nowhere where they are closed.

    Else the next file that is opened, a checkpoint maybe, would get the number, and with it what
    Ray prints.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest number that is free
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
