"""Extensions of tyro: number formats like 2e3, ranges in the help, suggestions for typos."""

import argparse
import dataclasses
import itertools
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from distributed_pg.errors import ConfigError, UsageError, did_you_mean
from distributed_pg.fields import range_in

PARSER_OPTIONS = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
_NO_MEMBER = re.compile(r"no type matching (\S+) could be instantiated from \[(.*)\]\.")
_ENDLESS = 2**53
_MOST_DIGITS = 20
"""More than any setting allows: 1e999999999 must not become a number of that length."""


def whole_number(text: str) -> int:
    """Parse a whole number, written 2000, 2_000 or 2e3.

    Raises:
        ValueError: the text is not a whole number.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = Decimal(text)
        if number.is_finite() and number.adjusted() < _MOST_DIGITS and number % 1 == 0:
            return int(number)
    except InvalidOperation:
        pass
    raise ValueError(f"{text!r} is not a whole number, such as 2000 or 2e3")


def rules() -> ConstructorRegistry:
    """Tyro rules that parse each ``int`` with :func:`whole_number` and show each field's range."""
    registry = ConstructorRegistry()
    expanding = set[type]()

    @registry.struct_rule
    def fields(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not dataclasses.is_dataclass(info.type) or info.type in expanding:
            return None
        expanding.add(info.type)  # so that tyro's own rule applies next, not this one again
        spec = ConstructorRegistry.get_struct_spec(info)
        expanding.remove(info.type)
        if not isinstance(spec, StructConstructorSpec):
            return None
        return dataclasses.replace(spec, fields=tuple(map(_with_range, spec.fields)))

    @registry.primitive_rule
    def whole(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
        if info.type is not int:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda arguments: whole_number(arguments[0]),
            is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _with_range(field: StructFieldSpec) -> StructFieldSpec:
    """Put the field's range before its default in the help, and join its help to one paragraph."""
    limits, text = range_in(field.type), field.helptext

    def paragraph() -> str | None:
        help_text = text() if callable(text) else text
        return None if help_text is None else " ".join(help_text.split())

    kind: Any = field.type
    if limits is not None:
        # An upper limit that nobody reaches is noise.
        allowed = f"at least {limits.low}" if limits.high >= _ENDLESS else str(limits)
        hint = tyro.conf.arg(help_behavior_hint=lambda default: f"({allowed}; default: {default})")
        kind = Annotated[kind, hint]
    return dataclasses.replace(field, type=kind, helptext=paragraph)


def early_flags(
    arguments: list[str], names: Iterable[str]
) -> tuple[argparse.Namespace, list[str]] | None:
    """Read some flags before tyro does, since the defaults of others depend on them.

    Args:
        arguments: the command line.
        names: the flags, without dashes in front and with underscores; each takes a value.

    Returns:
        The values, None for flags that are not given, and the remaining arguments. None if a flag
        lacks its value, which tyro reports.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        parser.add_argument(*spellings, dest=name)
    try:
        return parser.parse_known_args(arguments)
    except argparse.ArgumentError:
        return None


def suggestion(arguments: list[str], commands: Mapping[str, type]) -> str:
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


def _flags(kind: type) -> Iterator[str]:
    """The flags of a dataclass and of its nested dataclasses."""
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default_factory):
            yield from _flags(field.default_factory)
        elif field.metadata.get("flag", True):
            name = field.name.replace("_", "-")
            yield from (f"--{name}", f"--no-{name}")


def refusal(stop: SystemExit, printed: str) -> UsageError:
    """The error behind an exit of tyro.

    Args:
        stop: the exit.
        printed: what tyro has printed to stderr.
    """
    return _config_error(stop) or UsageError(_one_line(printed))


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
    return _NO_MEMBER.sub(_not_one_of, sentence)


def _not_one_of(found: re.Match[str]) -> str:
    """What tyro says of a value that fits no member of a union, as a user would put it."""
    kinds = {"INT": "a whole number", "FLOAT": "a number", "{None}": "None"}
    members = [kinds.get(member, member.strip("{}")) for member in found[1].split("|")]
    return f"{found[2]} is not {' or '.join(members)}"
