"""What is said of a failure: its cause, in one line, without colours."""

import pytest

from distributed_pg.errors import one_line, plain
from distributed_pg.runtime.causes import exception_in, first_sentence, last_line, reason_in

CREATION = """\
The actor died because of an error raised in its creation task, \x1b[36mray::RolloutWorker.\
__init__()\x1b[39m (pid=7, ip=10.0.0.1, actor_id=8f, repr=<distributed_pg.worker.RolloutWorker>)
  File "/x/distributed_pg/worker.py", line 31, in __init__
    raise ImportError("no module named emulator")
\x1b[31mImportError: no module named emulator. Install it.\x1b[39m"""
UNPICKLED = """\
The actor died because of an error raised in its creation task, \x1b[36mray::RolloutWorker.\
__init__()\x1b[39m (pid=7, ip=10.0.0.1)
  File "/x/ray/_private/function_manager.py", line 600, in temporary_actor_method
    raise RuntimeError(
RuntimeError: The actor with name RolloutWorker failed to import on the worker. This may be because

Traceback (most recent call last):
  File "/x/gymnasium.py", line 1
    import = 3
           ^
SyntaxError: invalid syntax
"""
NUMPY = """\
Traceback (most recent call last):
  File "/x/numpy.py", line 1, in <module>
ImportError:

IMPORTANT: PLEASE READ THIS
"""
DIED = """\
The actor died unexpectedly before finishing this task.
\tclass_name: RolloutWorker
\tip: 10.0.0.1
The actor is dead because its node has died. Node Id: ab12
"""
NATIVE = """\
\x1b[2m[2026-11-26 00:56:18,127 C 249 249] client.cc:85: The disk is on fire\x1b[0m
*** StackTrace Information ***
/x/ray/_raylet.so(+0x1812b9a) [0x7f905c012b9a] ray::operator<<()
/x/ray/_raylet.so(_ZN3ray6RayLogD1Ev+0x469) [0x7f905c0151c9] ray::RayLog::~RayLog()
python(_start+0x21) [0x563076800081] _start

*** SIGABRT received at time=1708000000 on cpu 7 ***
PC: @     0x7f94a4c8d9fc  (unknown)  pthread_kill
    @     0x7f94a4c39520  (unknown)  (unknown)
[2026-11-26 00:56:19,001 E 249 249] logging.cc:496: *** SIGABRT received at time=1708000000 ***
[2026-11-26 00:56:19,001 E 249 249] logging.cc:496: PC: @     0x7f94a4c8d9fc  (unknown)
[2026-11-26 00:56:19,001 E 249 249] logging.cc:496:     @     0x7f94a4c39520  (unknown)
Fatal Python error: Aborted

Stack (most recent call first):
  File "/x/ray/_private/worker.py", line 2700 in connect
  File "<string>", line 1 in <module>

Extension modules: msgpack._cmsgpack, psutil._psutil_linux (total: 2)
_start+0x21
"""


@pytest.mark.parametrize(
    ("text", "exception"),
    [
        (CREATION, "ImportError: no module named emulator. Install it."),
        (UNPICKLED, "SyntaxError: invalid syntax"),
        (NUMPY, "ImportError: IMPORTANT: PLEASE READ THIS"),
        (DIED, None),
        (NATIVE, None),
        ("", None),
        ('  File "x.py", line 1, in f\n', None),
        ("Traceback (most recent call last):\nKeyboardInterrupt\n", "KeyboardInterrupt"),
    ],
)
def test_the_cause_is_the_last_exception(text: str, exception: str | None) -> None:
    assert exception_in(text) == exception


def test_what_native_code_leaves_behind_is_passed_over() -> None:
    said = "[2026-11-26 00:56:18,127 C 249 249] client.cc:85: The disk is on fire"
    assert reason_in(NATIVE) == last_line(NATIVE) == said
    assert reason_in(NATIVE + CREATION) == "ImportError: no module named emulator. Install it."
    assert reason_in("*** SIGABRT\n") == "no reason given"


def test_a_message_of_rays_is_cut_after_a_sentence_and_not_within_a_name() -> None:
    assert first_sentence(DIED) == "The actor is dead because its node has died"
    killed = "Task was killed on 10.0.0.1 by distributed_pg.worker.\nMemory was 15.04GB"
    assert first_sentence(killed) == "Task was killed on 10.0.0.1 by distributed_pg.worker"
    assert first_sentence("") == ""


def test_nothing_colours_the_terminal_or_moves_its_cursor() -> None:
    text = "\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b(B\x1b7"
    text += "\x9b2J a\tb\r\nc\x07"
    assert plain(text) == "red link 2J a b\nc "
    assert one_line(text) == "red link 2J a b c"
    assert one_line("é 漢字 \u00a0x") == "é 漢字 x"
