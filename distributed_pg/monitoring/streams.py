"""Makes standard output and standard error safe to write to, whatever happens to their readers.

A reader may exit, a disk may fill up, a terminal may be closed or unable to show a character. None
of this may harm a run or cause a traceback.
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
        # Windows reports EINVAL for a pipe without a reader.
        gone = errno.EINVAL if sys.platform == "win32" else errno.EPIPE
        self.reader_gone = error.errno == gone


class _Stream:
    """A text stream that raises OutputError when it cannot be written.

    Args:
        stream: the stream to wrap; everything except writing is delegated to it.
        forgiving: drop the text instead of raising.
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
    """Make ``sys.stdout`` raise OutputError, and ``sys.stderr`` drop text, on a failed write.

    Characters missing from the terminal's encoding are replaced. After its first failed write, a
    stream discards everything.
    """
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    # A stream is None if its descriptor was closed.
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
    """Discard what ``stream`` still buffers and whatever is written to it later.

    Otherwise Python would retry the write at exit and print an error.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # has no descriptor, or is closed
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _fill_descriptors() -> None:
    """Open the null device on descriptors 0, 1 and 2 if they are closed.

    Otherwise the next file opened, perhaps a checkpoint, would get that number and receive what Ray
    prints.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # takes the lowest free number
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
