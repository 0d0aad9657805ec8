"""Parses the pickles of numpy arrays without running them.

``pickle.load`` calls what a file names. An Unpickler that refuses nearly all names still builds
whatever a file asks for, such as a key whose hash takes years. So this is a machine of its own. It
knows only the opcodes with which Python 2 and 3 write arrays, and imports and calls nothing: it
returns a tree of what the file says, whose size is limited by the number of opcodes.
"""

import codecs
import re
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

Value: TypeAlias = "int | Text | Name | Call | dict[bytes, Value] | tuple[Value, ...] | None"
"""A node of the tree."""
Coding: TypeAlias = Literal["bytes", "escaped", "utf-8", "raw-unicode-escape"]

MOST_OPCODES = 1000
"""Python writes a dict of two arrays with fewer than 150."""
_MOST_NAME = 60
"""Bytes in a name, as written, that are read or shown."""
_NEWEST_PROTOCOL = 5
_INTEGER = re.compile(rb"-?[0-9]{1,19}")
# What Python 2 never writes into a quoted string, once its doubled backslashes are taken out.
_NO_ESCAPE = re.compile(rb"\\(?!x[0-9a-f]{2}|['nrt])|[^ -~]")


class PickleError(ValueError):
    """A pickle is damaged, or holds something other than arrays. The message is one line."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string as the file has it."""

    raw: bytes
    coding: Coding

    def decode(self) -> bytes:
        """The string's bytes; those of Unicode characters are their numbers.

        Raises:
            PickleError: the file has no such string, or a character beyond number 255.
        """
        if self.coding == "bytes":
            return self.raw
        if self.coding != "escaped":
            try:
                return self._characters().encode("latin-1")
            except UnicodeError:
                raise PickleError("it has a string that is no bytes") from None
        # Checked first, since what Python makes of another escape depends on its version.
        if _NO_ESCAPE.search(self.raw.replace(b"\\\\", b"..")):
            raise PickleError("it has a string that Python does not write")
        return codecs.escape_decode(self.raw)[0]

    def _characters(self) -> str:
        if self.coding == "utf-8":
            return self.raw.decode()
        # By its name, this codec would be imported.
        return codecs.raw_unicode_escape_decode(self.raw)[0]


@dataclass(frozen=True, slots=True)
class Name:
    """Something importable that the file names, such as numpy.ndarray."""

    path: str


@dataclass(slots=True)
class Call:
    """A call that the file asks for, and the state that its result should take."""

    function: Name
    arguments: tuple[Value, ...]
    state: Value = None


def parse_pickle(content: bytes, names: Collection[str]) -> Value:
    """Parse a pickle of any protocol.

    Args:
        content: the whole file.
        names: what the file may name; none of it is imported.

    Returns:
        What the file would build, with :class:`Call` in place of each call. A part may contain
        itself, and the same part may appear in many places.

    Raises:
        PickleError: the pickle is cut short or damaged, names anything else, or has an opcode that
            no array needs.
    """
    return _Machine(content, names).run()


class _Machine:
    """Pickle's stack machine, of which each method is an opcode or a part of some."""

    def __init__(self, content: bytes, names: Collection[str]) -> None:
        self._content, self._position = content, 0
        self._names = names
        self._stack: list[Value] = []
        self._marks: list[int] = []
        """Heights of the stack at its marks."""
        self._memo: dict[int, Value] = {}

    def run(self) -> Value:
        for _ in range(MOST_OPCODES):
            opcode = self._take(1)
            if opcode == b".":
                return self._result()
            if opcode not in _OPCODES:
                where = f"the opcode {ascii(opcode)[1:]} at byte {self._position - 1}"
                raise PickleError(f"it has {where}, which no array needs")
            _OPCODES[opcode](self)
        raise PickleError(f"it has more than {MOST_OPCODES} opcodes")

    def _result(self) -> Value:
        value = self.pop()
        if self._stack or self._marks or self._position < len(self._content):
            raise PickleError("it holds more than one object")
        return value

    def _take(self, size: int) -> bytes:
        end = self._position + size
        if size < 0 or end > len(self._content):
            raise PickleError(f"it is cut short at byte {len(self._content)}")
        taken = self._content[self._position : end]
        self._position = end
        return taken

    def _line(self) -> bytes:
        end = self._content.find(b"\n", self._position)
        line = self._take(end - self._position if end >= 0 else -1)
        self._position += 1
        return line

    def _number(self, form: str) -> int:
        (number,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return int(number)

    def _decimal(self) -> int:
        line = self._line().removesuffix(b"L")
        if not _INTEGER.fullmatch(line):
            raise PickleError(f"it has no number where one should be, before byte {self._position}")
        return int(line)

    def push(self, value: Value) -> None:
        self._stack.append(value)

    def pop(self) -> Value:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self._damaged()
        return self._stack.pop()

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def _pop_to_mark(self) -> tuple[Value, ...]:
        if not self._marks:
            raise self._damaged()
        start = self._marks.pop()
        values = tuple(self._stack[start:])
        del self._stack[start:]
        return values

    def _damaged(self) -> PickleError:
        return PickleError(f"it is damaged before byte {self._position}")

    def protocol(self) -> None:
        protocol = self._number("<B")
        if protocol > _NEWEST_PROTOCOL:
            raise PickleError(
                f"it has pickle protocol {protocol}; 0 to {_NEWEST_PROTOCOL} are known"
            )

    def frame(self) -> None:
        self._take(8)  # a length, for reading from a pipe

    def integer(self, form: str) -> None:
        self.push(self._number(form))

    def decimal(self) -> None:
        start = self._position
        number = self._decimal()
        # Protocols 0 and 1 have no other form for False and True.
        boolean = self._content[start : self._position] in (b"00\n", b"01\n")
        self.push(bool(number) if boolean else number)

    def long(self) -> None:
        self.push(int.from_bytes(self._take(self._number("<B")), "little", signed=True))

    def sized_text(self, form: str, coding: Coding) -> None:
        self.push(Text(self._take(self._number(form)), coding))

    def quoted_text(self) -> None:
        line = self._line()
        if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b"'", b'"'):
            raise self._damaged()
        self.push(Text(line[1:-1], "escaped"))

    def line_of_text(self) -> None:
        self.push(Text(self._line(), "raw-unicode-escape"))

    def fixed_tuple(self, size: int) -> None:
        self.push(tuple(reversed([self.pop() for _ in range(size)])))

    def tuple_to_mark(self) -> None:
        self.push(self._pop_to_mark())

    def dict_to_mark(self) -> None:
        items = self._pop_to_mark()
        self.push({})
        self._set(items)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self._set((key, value))

    def set_to_mark(self) -> None:
        self._set(self._pop_to_mark())

    def _set(self, items: tuple[Value, ...]) -> None:
        target = self.pop()
        if not isinstance(target, dict) or len(items) % 2:
            raise self._damaged()
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self._key(key)] = value
        self.push(target)

    def _key(self, value: Value) -> bytes:
        if not isinstance(value, Text) or len(value.raw) > _MOST_NAME:
            raise PickleError(f"it has something other than a name before byte {self._position}")
        return value.decode()

    def name(self) -> None:
        self._push_name(self._line(), self._line())

    def name_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self._push_name(self._key(module), self._key(name))

    def _push_name(self, module: bytes, name: bytes) -> None:
        path = b".".join((module, name))[:_MOST_NAME].decode("latin-1")
        if path not in self._names:
            raise PickleError(f"it asks for {ascii(path)[1:-1]}, which no array needs")
        self.push(Name(path))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise self._damaged()
        self.push(Call(function, arguments))

    def set_state(self) -> None:
        state, target = self.pop(), self.pop()
        if not isinstance(target, Call) or target.state is not None:
            raise self._damaged()
        target.state = state
        self.push(target)

    def put(self) -> None:
        self._remember(self._decimal())

    def put_at(self, form: str) -> None:
        self._remember(self._number(form))

    def put_next(self) -> None:
        self._remember(len(self._memo))

    def _remember(self, place: int) -> None:
        value = self.pop()
        self.push(value)
        self._memo[place] = value

    def get(self) -> None:
        self._recall(self._decimal())

    def get_at(self, form: str) -> None:
        self._recall(self._number(form))

    def _recall(self, place: int) -> None:
        if place not in self._memo:
            raise self._damaged()
        self.push(self._memo[place])


def _sized(form: str, coding: Coding) -> Callable[[_Machine], None]:
    return partial(_Machine.sized_text, form=form, coding=coding)


_OPCODES: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,
    b"\x95": _Machine.frame,
    b"(": _Machine.mark,
    b"N": partial(_Machine.push, value=None),
    b"\x88": partial(_Machine.push, value=True),
    b"\x89": partial(_Machine.push, value=False),
    b"I": _Machine.decimal,
    b"L": _Machine.decimal,
    b"K": partial(_Machine.integer, form="<B"),
    b"M": partial(_Machine.integer, form="<H"),
    b"J": partial(_Machine.integer, form="<i"),
    b"\x8a": _Machine.long,
    # str of Python 2
    b"S": _Machine.quoted_text,
    b"U": _sized("<B", "bytes"),
    b"T": _sized("<i", "bytes"),
    # str of Python 3
    b"V": _Machine.line_of_text,
    b"\x8c": _sized("<B", "utf-8"),
    b"X": _sized("<I", "utf-8"),
    b"\x8d": _sized("<Q", "utf-8"),
    # bytes and bytearray of Python 3
    b"C": _sized("<B", "bytes"),
    b"B": _sized("<I", "bytes"),
    b"\x8e": _sized("<Q", "bytes"),
    b"\x96": _sized("<Q", "bytes"),
    b")": partial(_Machine.fixed_tuple, size=0),
    b"\x85": partial(_Machine.fixed_tuple, size=1),
    b"\x86": partial(_Machine.fixed_tuple, size=2),
    b"\x87": partial(_Machine.fixed_tuple, size=3),
    b"t": _Machine.tuple_to_mark,
    b"}": lambda machine: machine.push({}),
    b"d": _Machine.dict_to_mark,
    b"s": _Machine.set_item,
    b"u": _Machine.set_to_mark,
    b"c": _Machine.name,
    b"\x93": _Machine.name_on_stack,
    b"R": _Machine.call,
    b"b": _Machine.set_state,
    b"p": _Machine.put,
    b"q": partial(_Machine.put_at, form="<B"),
    b"r": partial(_Machine.put_at, form="<I"),
    b"\x94": _Machine.put_next,
    b"g": _Machine.get,
    b"h": partial(_Machine.get_at, form="<B"),
    b"j": partial(_Machine.get_at, form="<I"),
}
"""What each opcode does; those that Python writes for nothing in an array are left out."""
