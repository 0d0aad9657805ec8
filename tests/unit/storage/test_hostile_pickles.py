"""Pickles made to harm: a model, or one line; nothing in them is run, and nothing grows."""

import gc
import pickle
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from python2_pickles import model, python2_pickle

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import Progress
from distributed_pg.config import TrainConfig
from distributed_pg.storage.classic_script import classic_pickle, parse_classic
from distributed_pg.storage.pickle_tree import PickleError
from distributed_pg.storage.policy_file import TrainedPolicy
from distributed_pg.system_info import peak_memory

CASES = 100 * settings().max_examples
W1, W2 = model(1)
GOOD = pickle.dumps({"W1": W1, "W2": W2}, 2)
_audited = threading.local()
"""What this thread has done; a thread that another test has left may do as it likes."""


def _audit(event: str, _: tuple[object, ...]) -> None:
    events: list[str] | None = getattr(_audited, "events", None)
    if events is not None:
        events.append(event)


sys.addaudithook(_audit)


@contextmanager
def nothing_run() -> Iterator[None]:
    """Fail if the block imports, compiles, opens or runs anything, or unpickles in Python's way."""
    gc.disable()  # it would close here what other tests have left open
    events: list[str] = []
    _audited.events = events
    try:
        yield
    finally:
        del _audited.events
        gc.enable()
    assert events == []


def test_other_threads_do_as_they_like() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(pickle.loads, GOOD).result()
        with nothing_run():
            done = pool.submit(pickle.loads, GOOD)
            result = read(GOOD)
        assert done.result()["W2"] == W2
    assert isinstance(result, Policy)


def test_what_runs_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"pickle.find_class"), nothing_run():
        pickle.loads(GOOD)  # noqa: S301 - written by this test


def read(content: bytes) -> Policy | str:
    """The policy, or what is wrong; anything else fails the test."""
    try:
        policy = parse_classic(content)
    except PickleError as error:
        message = str(error)
        assert "\n" not in message
        assert message.isascii()
        assert len(message) < 300
        return message
    assert policy.w1.shape == (6400, len(policy.w2))
    assert policy.w2.shape == (len(policy.w2), 2)
    assert all(np.isfinite(array).all() for array in policy.arrays)
    return policy


HOSTILE = (
    b"cos\nsystem\n(S'true'\ntR",
    b"cposix\nsystem\n",
    b"c__builtin__\neval\n(S'1'\ntR",
    b"cbuiltins\nexec\n",
    b"cnumpy\nload\n",
    b"cnumpy.core.multiarray\nfromfile\n",
    b"\x8c\x02os\x8c\x06system\x93",
    b"(S'true'\nios\nsystem\n",
    b"(cos\nsystem\nS'true'\no",
    b"\x82\x01",
    b"Pa\n",
    b"Q",
    b"cnumpy\nndarray\n)\x81",
    b"j\xff\xff\xff\x7f",
    b"T\xff\xff\xff\x7f",
    b"T\xff\xff\xff\xff",
    b"X\xff\xff\xff\xff",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x96\x00\x00\x00\x00\x00\x00\x00\x7f",
    b"\x8b\xff\xff\xff\x7f",
    b"\x8a\xff" + b"\x7f" * 255,
    b"L" + b"9" * 5000 + b"L\n",
    b"I" + b"9" * 5000 + b"\n",
    b"N" + b"q\x00h\x00h\x00\x86" * 60 + b"s",
    b"(" * 900,
    b")" * 5000,
    b"2" * 5000,
    b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR",
    b"S'\\q'\n",
    b"S'\\x4'\n",
    b"V\\ud800\n",
    b"X\x04\x00\x00\x00\xf0\x9f\x8f\x93",
)
"""Opcodes that no model has."""
HARMLESS = (
    b"r\xff\xff\xff\xff",
    b"p99999999999999999\n",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
)
"""A place in the memo, and a frame, of a size that nothing may be allocated for."""


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("rest", [b"", b"."])
def test_nothing_else_is_a_model(content: bytes, rest: bytes) -> None:
    with nothing_run():
        for before in (b"", b"}", GOOD[:-1]):
            assert isinstance(read(before + content + rest), str)


@pytest.mark.parametrize("content", HARMLESS, ids=range(len(HARMLESS)))
def test_a_number_alone_allocates_nothing(content: bytes) -> None:
    before = peak_memory()
    with nothing_run():
        result = read(GOOD[:-1] + content + b".")
    assert isinstance(result, Policy)
    assert result.w1.tobytes() == parse_classic(GOOD).w1.tobytes()
    assert peak_memory() - before < 50 * 2**20


def dumped(value: object) -> bytes:
    return pickle.dumps(value, 2)


WRONG: list[tuple[bytes, str]] = [
    (b"", "it is cut short at byte 0"),
    (GOOD[:1000], "it is cut short at byte 1000"),
    (GOOD[:-1], f"it is cut short at byte {len(GOOD) - 1}"),
    (GOOD + b".", "it holds more than one object"),
    (b"cposix\nsystem\n(S'id'\ntR.", "it asks for posix.system, which no array needs"),
    (b"c\x1b[31m\n\xff\n", r"it asks for \x1b[31m.\xff, which no array needs"),
    (b"(ios\nsystem\n.", r"it has the opcode 'i' at byte 1, which no array needs"),
    (b"\x80\x09.", "it has pickle protocol 9; 0 to 5 are known"),
    (b"PK\x03\x04", "it has the opcode 'P' at byte 0, which no array needs"),
    (b"N" * 2000, "it has more than 1000 opcodes"),
    (dumped([W1, W2]), "it has the opcode ']' at byte 2, which no array needs"),
    (dumped((1, 2)), "it is not a dict of W1 and W2"),
    (dumped({}), "it has no W1"),
    (dumped({"W1": W1}), "it has no W2"),
    (dumped({"W1": W1, "W2": W2, "b": W2}), "it holds more than W1 and W2: b"),
    (dumped({1: W1}), "it has something other than a name before byte "),
    (dumped({"W1": W1, "W2": None}), "its W2 is not an array as numpy writes one"),
    (dumped({"W1": W1, "W2": 1}), "its W2 is not an array as numpy writes one"),
    (
        dumped({"W1": W1[:, 1:], "W2": W2}),
        "W1 has the shape (1, 6399) and W2 (1,); allowed: (H, 6400) and (H,) for H hidden units "
        "from 1 to 100000",
    ),
    (dumped({"W1": W1, "W2": np.ones(2)}), "W1 has the shape (1, 6400) and W2 (2,); allowed: "),
    (dumped({"W1": W1, "W2": W2[None]}), "W1 has the shape (1, 6400) and W2 (1, 1); allowed: "),
    (dumped({"W1": W1[None], "W2": W2}), "its W1 is not of one or two dimensions from 1 to 100000"),
    (dumped({"W1": W1, "W2": W2[:0]}), "it asks for __builtin__.bytes, which no array needs"),
    (dumped({"W1": W1, "W2": W2 * np.nan}), "W2 has a number that is not finite in float32"),
    (dumped({"W1": W1 - np.inf, "W2": W2}), "W1 has a number that is not finite in float32"),
    (dumped({"W1": W1, "W2": W2 + 1e39}), "W2 has a number that is not finite in float32"),
    (dumped({"W1": W1.astype(int), "W2": W2}), "its W1 does not hold float64 or float32 numbers"),
    (dumped({"W1": W1 * 1j, "W2": W2}), "its W1 does not hold float64 or float32 numbers"),
    (
        dumped({"W1": W1.astype([("a", "f8")]), "W2": W2}),
        "its W1 does not hold float64 or float32 numbers",
    ),
]


@pytest.mark.parametrize(("content", "complaint"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_with_it(content: bytes, complaint: str) -> None:
    with nothing_run():
        message = read(content)
    assert isinstance(message, str)
    assert message.startswith(complaint)


def python2_with(old: bytes, new: bytes) -> bytes:
    content = python2_pickle(W1, W2, 0)
    assert old in content
    return content.replace(old, new)


@pytest.mark.parametrize(
    "content",
    [
        python2_with(b"I6400\n", b"I9223372036854775807\n"),
        python2_with(b"I6400\n", b"L99999999999999999999999L\n"),
        python2_with(b"(I1\nI6400\n", b"(I-1\nI-6400\n"),
        python2_with(b"(I1\nI6400\n", b"(I0\nI6400\n"),
        python2_with(b"(I1\nI6400\n", b"(I6400\n"),
        python2_with(b"(I1\nI6400\n", b"(I1\nI3200\n"),
        python2_with(b"(I1\nI6400\n", b"(I65536\nI65536\n"),
        python2_with(b"'f8'", b"'O8'"),
        python2_with(b"'f8'", b"'f2'"),
        python2_with(b"'f8'", b"'V8'"),
        python2_with(b"'<'", b"'|'"),
        python2_with(b"I00\n", b"N"),
        python2_with(b"(I3\n", b"(I4\n"),
        python2_with(b"bs.", b"ss."),
        python2_with(b"S'b'\n", b"(S'b'\n"),
    ],
)
def test_an_array_that_lies(content: bytes) -> None:
    before = peak_memory()
    with nothing_run():
        assert isinstance(read(content), str)
    assert peak_memory() - before < 50 * 2**20


def test_bombs_take_neither_time_nor_memory() -> None:
    shared_pairs = b"}N" + b"q\x00h\x00\x86" * 200 + b"Ns."  # a key whose hash takes 2**200 steps
    itself = b"cnumpy\nndarray\n)Rq\x00h\x00b."
    nested = b")" + b"\x85" * 990 + b"."
    before, begin = peak_memory(), time.process_time()
    with nothing_run():
        for content in (shared_pairs, itself, nested, b"}" * 10**7, b"(" * 10**7, b"S'" * 10**7):
            assert isinstance(read(content), str)
    assert time.process_time() - begin < 5.0
    assert peak_memory() - before < 100 * 2**20


def goods() -> list[bytes]:
    policy = TrainedPolicy(TrainConfig(hidden_units=1), parse_classic(GOOD), Progress())
    of_python_2 = [python2_pickle(W1, W2, protocol) for protocol in range(3)]
    of_python_3 = [pickle.dumps({"W1": W1, "W2": W2}, protocol) for protocol in range(6)]
    return [*of_python_2, *of_python_3, classic_pickle(policy)]


Damage = Callable[[random.Random, bytearray, int], Any]
"""Damages the content at a place."""


def flip(chance: random.Random, content: bytearray, at: int) -> None:
    content[at] ^= 1 << chance.randrange(8)


def other_byte(chance: random.Random, content: bytearray, at: int) -> None:
    content[at] = chance.choice(
        b"()}]NIJKMLSTUVXBC\x80\x85\x86\x87\x88\x89\x8a\x8c\x93\x94cRbstu.0"
    )


def cut(chance: random.Random, content: bytearray, at: int) -> None:
    del content[at:]


def cut_out(chance: random.Random, content: bytearray, at: int) -> None:
    del content[at : at + chance.randint(1, 30)]


def repeat(chance: random.Random, content: bytearray, at: int) -> None:
    content[at:at] = content[at : at + chance.randint(1, 100)]


def insert(chance: random.Random, content: bytearray, at: int) -> None:
    content[at:at] = chance.choice([*HOSTILE, *HARMLESS, chance.randbytes(5)])


DAMAGE: tuple[Damage, ...] = (flip, flip, other_byte, other_byte, cut, cut_out, repeat, insert)


def place(chance: random.Random, content: bytearray) -> int:
    """Mostly among the opcodes, which are before and after the numbers."""
    near = chance.randrange(min(450, len(content)))
    return chance.choice([near, near, len(content) - 1 - near, chance.randrange(len(content))])


def test_thousands_of_damaged_pickles() -> None:
    chance, bases = random.Random(0), goods()
    before, begin = peak_memory(), time.process_time()
    read_anyway, messages = 0, set()
    for _ in range(CASES):
        content = bytearray(chance.choice(bases))
        for _ in range(chance.choice([1, 1, 2, 5])):
            if content:
                chance.choice(DAMAGE)(chance, content, place(chance, content))
        with nothing_run():
            result = read(bytes(content))
        if isinstance(result, str):
            messages.add(result)
        else:
            read_anyway += 1
    # Damage to a number, or in places of the memo that are not used.
    assert CASES / 200 < read_anyway < CASES / 3
    assert len(messages) > CASES / 10
    assert peak_memory() - before < 100 * 2**20
    assert time.process_time() - begin < 120.0
