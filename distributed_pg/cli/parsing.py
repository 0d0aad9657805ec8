"""What tyro's parsing lacks: numbers as people write them, and what a wrong word may have meant."""

import dataclasses
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from distributed_pg.errors import did_you_mean

_MOST_DIGITS = 20
"""More than any setting allows: 1e999999999 must not become a number of that length."""


def whole_number(text: str) -> int:
    """A whole number, which may be written 2000, 2_000 or 2e3.

    Raises:
        ValueError: it is none.
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


def whole_numbers() -> ConstructorRegistry:
    """What has tyro read each ``int`` as :func:`whole_number` does."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
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


def suggestion(arguments: list[str], commands: Mapping[str, type]) -> str:
    """What the first unknown command or flag may have meant, as the end of a message.

    Args:
        arguments: the command line.
        commands: for each command the dataclass of its arguments.
    """
    command, *rest = arguments
    if command not in commands:
        return did_you_mean(command, commands)
    known = set(_flags(commands[command]))
    flags = (word.partition("=")[0].replace("_", "-") for word in rest if word.startswith("--"))
    unknown = next((flag for flag in flags if flag not in known), None)
    return "" if unknown is None else did_you_mean(unknown, known)


def _flags(kind: type) -> Iterator[str]:
    """The flags of a dataclass and of those within it."""
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default_factory):
            yield from _flags(field.default_factory)
        else:
            name = field.name.replace("_", "-")
            yield from (f"--{name}", f"--no-{name}")
