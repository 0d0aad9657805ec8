"""Checks the fields of a dataclass against their annotated types, ranges and choices."""

import functools
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal

from distributed_pg.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Range:
    """The range of numbers a field allows, as in ``Annotated[int, Range(1, 60)]``.

    An open end is excluded.
    """

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        ends = (self.low, self.high)
        low, high = (f"{end:g}" if isinstance(end, float) else str(end) for end in ends)
        if not (self.open_low or self.open_high):
            return f"from {low} to {high}"
        begin = f"above {low}" if self.open_low else f"from {low}"
        return f"{begin} and {'below' if self.open_high else 'up to'} {high}"


def check_fields(settings: Any) -> None:
    """Check each field of a dataclass against its type, including ranges and choices.

    The items of a tuple of fixed length are not checked.

    Raises:
        ConfigError: a value is not allowed; the message names the field and the allowed values.
    """
    for name, hint in _hints(settings.__class__).items():
        check_value(name, getattr(settings, name), hint)


@functools.cache
def _hints(dataclass_type: type) -> dict[str, Any]:
    return typing.get_type_hints(dataclass_type, include_extras=True)


def check_value(name: str, value: Any, hint: Any) -> None:
    """Check one value against a type, as :func:`check_fields` does.

    Args:
        name: the field, for the message.
        value: the value to check.
        hint: its type, with ``Annotated`` extras.

    Raises:
        ConfigError: the value is not allowed; the message begins with ``name``.
    """
    members = _members(hint)
    matching = [member for member in members if member.is_type_of(value)]
    if not matching:
        names = " or ".join(
            "none" if kind is type(None) else kind.__name__
            for member in members
            for kind in member.classes
        )
        raise ConfigError(f"{name}: {value!r} is not of type {names}")
    if not any(member.allows(value) for member in matching):
        allowed = ", or ".join(member.allowed for member in members if member.allowed)
        choices = [choice for member in members for choice in member.choices]
        suggestion = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise ConfigError(f"{name}: {value!r} is not {allowed}{suggestion}")
    for member in matching:
        if member.item is not None:
            for item in value:
                check_value(name, item, member.item)


def range_in(hint: Any) -> Range | None:
    """The first range in a type; None if it has none."""
    return next((limits for _, limits in types_in(hint) if limits is not None), None)


@dataclass(frozen=True)
class _Member:
    """A member of a union, or the whole type if it is not a union."""

    kind: Any
    limits: Range | None

    @functools.cached_property
    def choices(self) -> tuple[str, ...]:
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()

    @functools.cached_property
    def item(self) -> Any:
        """The item type of a tuple of any length; else None."""
        args = typing.get_args(self.kind)
        return args[0] if typing.get_origin(self.kind) is tuple and args[1:] == (...,) else None

    @functools.cached_property
    def classes(self) -> tuple[type, ...]:
        if self.choices:
            return (str,)
        if self.kind is float:
            return (int, float)
        return (typing.get_origin(self.kind) or self.kind,)

    @property
    def allowed(self) -> str:
        """The allowed values, for a message; empty if all values of the type are allowed."""
        if self.choices:
            several = len(self.choices) > 1
            return f"one of {', '.join(self.choices)}" if several else f'"{self.choices[0]}"'
        number = "a whole number" if self.kind is int else "a number"
        return "" if self.limits is None else f"{number} {self.limits}"

    def is_type_of(self, value: Any) -> bool:
        """Whether the value has the type; booleans do not count as numbers."""
        return isinstance(value, self.classes) and (
            self.kind is bool or not isinstance(value, bool)
        )

    def allows(self, value: Any) -> bool:
        """Whether a value of the type is in the range or among the choices."""
        return (not self.choices or value in self.choices) and (
            self.limits is None or value in self.limits
        )


@functools.cache
def _members(hint: Any) -> tuple[_Member, ...]:
    return tuple(_Member(*one) for one in types_in(hint))


def types_in(hint: Any, limits: Range | None = None) -> Iterator[tuple[Any, Range | None]]:
    """Yield the types that a hint allows, each with its range if it is a number with one."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner, *notes = typing.get_args(hint)
        yield from types_in(inner, next((n for n in notes if isinstance(n, Range)), limits))
    elif origin in (typing.Union, UnionType):
        for member in typing.get_args(hint):
            yield from types_in(member, limits)
    else:
        yield hint, limits if hint in (int, float) else None
