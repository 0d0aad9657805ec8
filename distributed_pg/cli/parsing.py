"""Extensions of tyro: number formats like 2e3, ranges in the help, flags read early."""

import argparse
import dataclasses
from collections.abc import Callable, Iterable
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

from distributed_pg.fields import range_in

PARSER_OPTIONS = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
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
        value = Decimal(text)
        if value.is_finite() and value.adjusted() < _MOST_DIGITS and value % 1 == 0:
            return int(value)
    except InvalidOperation:
        pass
    raise ValueError(f"{text!r} is not a whole number, such as 2000 or 2e3")


def number(text: str) -> float:
    """Parse a number.

    Raises:
        ValueError: the text is not a number.
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def rules() -> ConstructorRegistry:
    """Tyro rules that parse numbers as above and show each field's range."""
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
    def numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if info.type is int:
            return _number_spec("INT", whole_number, int)
        return _number_spec("FLOAT", number, (int, float)) if info.type is float else None

    return registry


def _number_spec(
    metavar: str, parse: Callable[[str], float], types: type | tuple[type, ...]
) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda arguments: parse(arguments[0]),
        is_instance=lambda value: isinstance(value, types) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


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


def given_fields(arguments: list[str], kind: type) -> tuple[str, ...]:
    """The names of the fields of a dataclass that a command line sets, in the order of the class.

    Args:
        arguments: the command line.
        kind: the dataclass.
    """
    flags = {word.partition("=")[0][2:] for word in arguments if word.startswith("--")}
    given = {flag.replace("-", "_") for flag in flags}
    names = (field.name for field in dataclasses.fields(kind))
    return tuple(name for name in names if name in given or f"no_{name}" in given)
