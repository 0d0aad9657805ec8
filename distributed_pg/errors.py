"""The errors a user can cause. The command line prints each as one line."""

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
"""White space but for blanks and line breaks, and what moves a terminal's cursor or rings."""


class UsageError(Exception):
    """The command or the config asks for something that is not allowed (exit code 2)."""


class ConfigError(UsageError, ValueError):
    """A config field has a value outside its range. The message names the field and the range."""


class RunError(Exception):
    """The run cannot go on, or a file or a machine it needs is not there (exit code 1)."""

    hangs = False
    """Whether something was left that hangs, and would keep the process from ending."""


class CheckpointError(RunError):
    """A file is no checkpoint of ours, or is damaged. The message names the file."""


class RomNotFoundError(RunError):
    """ale-py has no usable Pong ROM."""


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Raise RunError where an operating system's error within says that it cannot be written.

    Args:
        what: the file or folder, as the message is to name it.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{what} cannot be written ({error.strerror or one_line(error)})") from error


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the known one that is like it, if one is."""
    close = get_close_matches(str(word), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def plain(text: object) -> str:
    """The text of ``text`` without what would colour a terminal or move its cursor.

    For what other processes say: Ray colours its messages wherever they go.
    """
    return _CONTROLS.sub(" ", _ESCAPES.sub("", str(text).replace("\r\n", "\n")))


def one_line(error: object, most: int = 500) -> str:
    """The :func:`plain` text of ``error`` without line breaks, cut after ``most`` characters."""
    text = " ".join(plain(error).split())
    return text if len(text) <= most else f"{text[:most]} ..."
