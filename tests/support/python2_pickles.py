"""The pickles of the classic script's model as Python 2's cPickle wrote them."""

import struct

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]


def model(hidden_units: int) -> tuple[Weights, Weights]:
    """W1 (H, 6400) and W2 (H,), all elements different and hardly any exact in float32."""
    inputs = hidden_units * 6400
    w1 = (np.arange(inputs) - inputs // 2).reshape(hidden_units, 6400) / 7.0 / inputs
    return w1, (np.arange(hidden_units) - hidden_units // 2) / 3.0


def python2_pickle(w1: Weights, w2: Weights, protocol: int) -> bytes:
    """``cPickle.dumps({"W1": w1, "W2": w2}, protocol)`` of Python 2.7 with numpy 1.16."""
    writer = _Writer(protocol)
    begin = b"\x80\x02" if protocol == 2 else b""
    begin += (b"}" if protocol else b"(d") + writer.put()
    items = b""
    for key, array in (("W2", w2), ("W1", w1)):  # the order of Python 2's dict
        items += writer.text(key.encode()) + writer.put() + writer.array(array)
        items += b"" if protocol else b"s"
    return begin + (b"(" + items + b"u" if protocol else items) + b"."


class _Writer:
    """Writes the opcodes of one pickle, and knows what it has in its memo."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._places = 0
        self._seen: dict[str, int] = {}

    def array(self, array: Weights) -> bytes:
        kind = self._once("multiarray", b"cnumpy.core.multiarray\n_reconstruct\n")
        ndarray = self._once("ndarray", b"cnumpy\nndarray\n")
        empty = kind + self._tuple(ndarray + self._tuple(self._int(0), 1) + self.text(b"b"), 3)
        empty += b"R" + self.put()
        shape = self._tuple(b"".join(map(self._int, array.shape)), array.ndim)
        false = b"\x89" if self._protocol == 2 else b"I00\n"
        state = self._int(1) + shape + self._dtype() + false + self.text(array.tobytes())
        return empty + self._tuple(state, 5) + b"b"

    def _dtype(self) -> bytes:
        if "float64" in self._seen:
            return self._get(self._seen["float64"])
        kind = self._once("dtype", b"cnumpy\ndtype\n")
        made = kind + self._tuple(self.text(b"f8") + self._int(0) + self._int(1), 3) + b"R"
        made += self.put("float64")
        ints = [self._int(number) for number in (3, -1, -1, 0)]
        return made + self._tuple(ints[0] + self.text(b"<") + b"NNN" + b"".join(ints[1:]), 8) + b"b"

    def text(self, text: bytes) -> bytes:
        if self._protocol == 0:
            return b"S" + _quoted(text) + b"\n"
        short = len(text) < 256
        return (struct.pack("<cB", b"U", len(text)) if short else _number("T", len(text))) + text

    def _int(self, number: int) -> bytes:
        if self._protocol == 0:
            return b"I%d\n" % number
        if 0 <= number < 256:
            return struct.pack("<cB", b"K", number)
        return struct.pack("<cH", b"M", number) if number >= 0 else _number("J", number)

    def _tuple(self, items: bytes, size: int) -> bytes:
        if self._protocol == 2 and size <= 3:
            return items + bytes([0x84 + size])
        return b"(" + items + b"t"

    def put(self, name: str = "") -> bytes:
        self._places += 1
        self._seen[name] = self._places
        return struct.pack("<cB", b"q", self._places) if self._protocol else b"p%d\n" % self._places

    def _get(self, place: int) -> bytes:
        return struct.pack("<cB", b"h", place) if self._protocol else b"g%d\n" % place

    def _once(self, name: str, opcodes: bytes) -> bytes:
        return self._get(self._seen[name]) if name in self._seen else opcodes + self.put(name)


def _number(opcode: str, number: int) -> bytes:
    return struct.pack("<ci", opcode.encode(), number)


def _quoted(text: bytes) -> bytes:
    """repr() of a str in Python 2."""
    quote = b'"' if b"'" in text and b'"' not in text else b"'"
    named = {9: b"\\t", 10: b"\\n", 13: b"\\r", 92: b"\\\\", quote[0]: b"\\" + quote}
    characters = [
        named.get(byte, bytes([byte]) if 32 <= byte < 127 else b"\\x%02x" % byte)
        for byte in range(256)
    ]
    return quote + b"".join(map(characters.__getitem__, text)) + quote
