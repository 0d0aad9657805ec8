"""What users read about wrong usage: tyro's errors in one line, flags by name, suggestions."""

import dataclasses
import itertools
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import get_type_hints

import tyro

from distributed_pg.errors import ConfigError, UsageError, did_you_mean

_NO_MEMBER = re.compile(r"no type matching (\S+) could be instantiated from \[(.*)\]\.")
_UNRECOGNIZED = "Unrecognized options: "
_MISSING = re.compile(r"Missing from distributed-pg (\S+): ((?:--\S+ )?\S+) ")


def refusal(
    stop: SystemExit,
    printed: str,
    arguments: Sequence[str] = (),
    commands: Mapping[str, type] | None = None,
) -> UsageError:
    """The error behind an exit of tyro.

    Args:
        stop: the exit.
        printed: what tyro has printed to stderr.
        arguments: the command line, to suggest a correction.
        commands: the argument dataclass of each command.
    """
    message = _one_line(printed)
    if commands is not None and message.startswith(_UNRECOGNIZED):
        message = _without_values(message, arguments) + suggestion(arguments, commands)
    return _config_error(stop) or UsageError(message)


def suggestion(arguments: Sequence[str], commands: Mapping[str, type]) -> str:
    """Suggest a correction for the first unknown command or flag.

    Args:
        arguments: the command line.
        commands: the argument dataclass of each command.

    Returns:
        The end of an error message; empty if nothing is similar.
    """
    command, *rest = arguments
    if command not in commands:
        return did_you_mean(command, commands)
    known = set(_flags(commands[command]))
    flags = (word.partition("=")[0].replace("_", "-") for word in rest if word.startswith("--"))
    unknown = next((flag for flag in flags if flag not in known), None)
    return "" if unknown is None else did_you_mean(unknown, known)


def with_flag(message: str, kind: type) -> str:
    """Name the flag in a message that begins with a setting's name, as Python knows it.

    Args:
        message: the message, such as "batch_size: 0 is not ...".
        kind: the argument dataclass of the command.
    """
    name, colon, rest = message.partition(": ")
    flag = f"--{name.replace('_', '-')}"
    return f"{flag}: {rest}" if colon and flag in _flags(kind) else message


def _flags(kind: type) -> Iterator[str]:
    """The flags of a dataclass and of its nested dataclasses."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        positional = tyro.conf.Positional in getattr(hints[field.name], "__metadata__", ())
        if dataclasses.is_dataclass(field.default_factory):
            yield from _flags(field.default_factory)
        elif field.metadata.get("flag", True) and not positional:
            name = field.name.replace("_", "-")
            yield from (f"--{name}", f"--no-{name}")


def _config_error(stop: SystemExit) -> ConfigError | None:
    """The ConfigError behind tyro's exit, if any; tyro handles every ValueError as its own."""
    error: BaseException | None = stop
    while error is not None and not isinstance(error, ConfigError):
        error = error.__context__
    return error


def _one_line(box: str) -> str:
    """The first sentence of tyro's framed error message.

    Tyro's error hook is private, and a later version may change the frame; pyproject.toml caps it.
    """
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()[1:]]
    texts = [line.strip("-") and line for line in lines]  # dashes are frame if output is not UTF-8
    # The message ends at a frame line or an empty one.
    message = itertools.takewhile(bool, itertools.dropwhile(operator.not_, texts))
    sentence = " ".join(message).removeprefix("Error parsing ") or box
    if missing := _MISSING.match(sentence):
        command, argument = missing.groups()
        return f"{command}: {argument} is missing; {command} --help describes it"
    return _NO_MEMBER.sub(_not_one_of, sentence)


def _without_values(message: str, arguments: Sequence[str]) -> str:
    """Tyro's list of unrecognized words, without the values of unrecognized flags."""
    words = message.removeprefix(_UNRECOGNIZED).split(", ")
    after = dict(itertools.pairwise(reversed(arguments)))  # each word's predecessor
    kept = [w for w in words if w.startswith("-") or not _takes_value(after.get(w, ""), words)]
    return _UNRECOGNIZED + ", ".join(kept)


def _takes_value(flag: str, unrecognized: list[str]) -> bool:
    return flag.startswith("--") and "=" not in flag and flag in unrecognized


def _not_one_of(found: re.Match[str]) -> str:
    """What tyro says of a value that fits no member of a union, as a user would put it."""
    kinds = {"INT": "a whole number", "FLOAT": "a number", "{None}": "None"}
    names = sorted(found[1].split("|"), key="{None}".__eq__)  # None comes last
    members = [kinds.get(name, name.strip("{}")) for name in names]
    return f"{found[2]} is not {' or '.join(members)}"
