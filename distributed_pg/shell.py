"""Arguments of the commands that users are shown, and paste."""

import shlex
import subprocess
import sys
from pathlib import Path

from distributed_pg.config import AUTO, PRETRAINED

_WORDS = (AUTO, PRETRAINED, "None")
"""What a command does not take for the name of a file or folder."""


def as_argument(place: str | Path) -> str:
    """A file, folder or URI, written so that a command in a shell takes it for that.

    Args:
        place: the path, or the URI.

    Returns:
        The place in quotes, if a shell needs them. A name that is a word or a flag of the commands
        begins with ``./``.
    """
    text = str(place)
    if text in _WORDS or text.startswith("-"):
        text = f"./{text}"
    return subprocess.list2cmdline([text]) if sys.platform == "win32" else shlex.quote(text)
