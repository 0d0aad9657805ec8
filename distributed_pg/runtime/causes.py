"""Extracts the cause of a failure from the output of Ray or another process."""

import re

from distributed_pg.errors import one_line, plain

_FRAME = re.compile(r'\s+File "|Traceback \(most recent call last\)|\s*ray::\S+\(')
"""A line of a Python traceback; Ray replaces the first with a line in its own format."""
_EXCEPTION = re.compile(r"[\w.]+(:|: .*)?$")
"""The line after a traceback's frames."""
_NATIVE = re.compile(
    r"(\[[^]]*\] \S+:\d+: )?"  # prefix of Ray's log
    r"(\S*\(\S*\+0x[0-9a-f]+\)|\S+\+0x[0-9a-f]+|\s*@ +0x|PC: @ +0x|\*\*\* "
    r'|Fatal Python error|Extension modules:|(Current thread|Thread|Stack) [0(]|\s+File ")'
)
"""A line that native code, and Python with it, prints when it aborts."""
_DEAD = "The actor is dead because "
"""Start of the line that says more about an actor's death than the first line."""


def exception_in(text: str) -> str | None:
    """The exception at the end of the last Python traceback in ``text``, in one line.

    None if there is no traceback.
    """
    lines = plain(text).splitlines()
    frames = [number for number, line in enumerate(lines) if _FRAME.match(line)]
    after = lines[frames[-1] + 1 :] if frames else []
    flush = [number for number, line in enumerate(after) if line[:1].strip()]
    if not flush or not _EXCEPTION.match(after[flush[0]]):
        return None
    begin = after[flush[0] :]
    # The message of some exceptions starts on the next line.
    return one_line("\n".join(begin) if begin[0].rstrip().endswith(":") else begin[0])


def reason_in(output: str) -> str:
    """Why a process failed, in one line: its exception, or else the last line of its output."""
    return exception_in(output) or last_line(output) or "no reason given"


def last_line(output: str) -> str:
    """The last meaningful line, skipping stack traces of native code; "" if there is none."""
    lines = (line for line in reversed(plain(output).splitlines()) if line.strip())
    return one_line(next((line for line in lines if not _NATIVE.match(line)), ""))


def first_sentence(text: str) -> str:
    """The first sentence of a Ray message, or the one that says why an actor died."""
    lines = plain(text).strip().splitlines() or [""]
    line = next((line for line in lines if line.startswith(_DEAD)), lines[0])
    return one_line(re.split(r"\.(?:\s|$)", line, maxsplit=1)[0])


def reason_of(error: Exception) -> str:
    """A Ray error in one line, with the exception that caused it, if known."""
    text = str(error)
    return f"{type(error).__name__}: {exception_in(text) or first_sentence(text)}"
