"""Errors that a user can cause, and the wording of messages.

The command line prints each error as one line.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # titles, links
    r"|\x1b[ -/]*[0-~]"  # the rest
)
_CONTROLS = re.compile(r"[^\S \n]|[\x00-\x08\x0e-\x1f\x7f-\x9f]")
"""White space other than spaces and line breaks, and control characters."""


class UsageError(Exception):
    """The command or the config requests something invalid (exit code 2)."""


class ConfigError(UsageError, ValueError):
    """A config field is outside its range. The message names the field and the range."""


class RunError(Exception):
    """The run cannot continue, or a file or machine it needs is missing (exit code 1)."""

    hangs = False
    """Whether a hanging call was left behind that would keep the process alive."""


class CheckpointError(RunError):
    """A file is not a checkpoint of this package or is damaged. The message names the file."""


class RomNotFoundError(RunError):
    """ale-py has no usable Pong ROM."""


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Turn an OSError in the ``with`` block into a RunError.

    Args:
        what: the file or folder being written, as the message names it.

    Raises:
        RunError: the block raised OSError.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{what} cannot be written ({error.strerror or one_line(error)})") from error


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """End of a message about an unknown word: suggests a similar known one; empty if none is."""
    close = get_close_matches(str(word), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def counted(count: int, noun: str) -> str:
    """A number of things: "1 update", "2 updates"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def plain(text: object) -> str:
    """Convert ``text`` to a string without terminal escapes and control characters.

    Use it for output of other processes: Ray colours its messages even when they go to a file.
    """
    return _CONTROLS.sub(" ", _ESCAPES.sub("", str(text).replace("\r\n", "\n")))


def one_line(error: object, most: int = 500) -> str:
    """The :func:`plain` text of ``error`` on one line, cut after ``most`` characters."""
    text = " ".join(plain(error).split())
    return text if len(text) <= most else f"{text[:most]} ..."
