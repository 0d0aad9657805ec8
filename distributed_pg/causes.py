"""Find the cause in what Ray or another process says when it fails."""

import re

from distributed_pg.errors import one_line, plain

_FRAME = re.compile(r'\s+File "|Traceback \(most recent call last\)|\s*ray::\S+\(')
"""A line of a Python traceback; Ray writes its own in the place of the first."""
_NATIVE = re.compile(
    r"\S*\(\S*\+0x[0-9a-f]+\)|\S+\+0x[0-9a-f]+|\s*@ +0x|PC: @ +0x|\*\*\* "
    r"|\[[^]]*\] \S+:\d+: +@|\[[^]]*\] \S+:\d+: (PC|\*\*\*)"
)
"""A line of the trace that native code leaves behind when it aborts."""
_DEAD = "The actor is dead because "
"""Begins the line that says more of an actor's death than the first one."""


def exception_in(text: str) -> str | None:
    """The exception that the last Python traceback in ``text`` ends with, in one line.

    None where there is no traceback.
    """
    lines = plain(text).splitlines()
    frames = [number for number, line in enumerate(lines) if _FRAME.match(line)]
    after = lines[frames[-1] + 1 :] if frames else []
    for number, line in enumerate(after):
        if line.strip() and not line[0].isspace():
            # The message of some exceptions begins on the next line.
            return one_line("\n".join(after[number:]) if line.rstrip().endswith(":") else line)
    return None


def reason_in(output: str) -> str:
    """Why a process failed, in one line: its exception, or else the last thing that it said."""
    said = [line for line in plain(output).splitlines() if line.strip() and not is_native(line)]
    return exception_in(output) or one_line(said[-1] if said else "no reason given")


def is_native(line: str) -> bool:
    """Whether a line belongs to the stack trace of native code, which tells a user nothing."""
    return _NATIVE.match(line) is not None


def first_sentence(text: str) -> str:
    """The first sentence of a message of Ray's, or the one that says why an actor is dead."""
    lines = plain(text).strip().splitlines() or [""]
    line = next((line for line in lines if line.startswith(_DEAD)), lines[0])
    return one_line(re.split(r"\.(?:\s|$)", line, maxsplit=1)[0])
