"""What the chaos runs tell a good run from a bad one by."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from chaos_script import CHAOS
from faults import (
    FaultError,
    difference,
    is_alive,
    last_update,
    lost_updates,
    newest_checkpoint,
    until,
    write_record,
)
from sessions import Disowned, FullDisk, Nohup, Pipe, Session, Terminal
from ways import WAYS, way_of

# Prints a line a tenth of a second, and goes on when it cannot; says which signals came.
COMMAND = """
import os, signal, sys, time
def told(number, _):
    with open(sys.argv[1], "a") as file:
        file.write(signal.Signals(number).name + "\\n")
signal.signal(signal.SIGINT, told)
if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
    signal.signal(signal.SIGHUP, told)
open(sys.argv[1], "a").write("begun\\n")
while "SIGINT" not in open(sys.argv[1]).read() and "SIGHUP" not in open(sys.argv[1]).read():
    try:
        print("line", flush=True)
    except OSError as error:
        with open(sys.argv[1], "a") as file:
            file.write(f"{error.errno}\\n")
        sys.stdout = open("/dev/null", "w")
    time.sleep(0.05)
os._exit(3)  # a hang-up comes more than once, and sys.exit brings back the handlers that kill
"""


def run_with(folder: Path, updates: int, saved: int | None) -> Path:
    (folder / "checkpoints").mkdir()
    lines = [json.dumps({"update": u + 1}) + "\n" for u in range(updates)]
    (folder / "metrics.jsonl").write_text("".join(lines) + '{"upd')
    if saved is not None:
        (folder / f"checkpoints/update-{saved:08}.safetensors").touch()
    return folder


@pytest.mark.parametrize(
    ("updates", "saved", "seen", "lost"),
    [(0, None, 0, 0), (7, 7, 5, 0), (7, 5, 7, 2), (5, 5, 7, 2), (3, None, 0, 3), (7, 8, 7, 0)],
)
def test_updates_that_are_in_no_checkpoint_are_lost(
    tmp_path: Path, updates: int, saved: int | None, seen: int, lost: int
) -> None:
    run = run_with(tmp_path, updates, saved)
    assert last_update(run) == updates
    assert lost_updates(run, seen) == lost
    assert (newest_checkpoint(run) is None) == (saved is None)


def test_a_run_is_compared_update_by_update() -> None:
    expected = [(1, "a"), (2, "b"), (3, "c")]
    assert difference(expected, expected) is None
    assert difference([(1, "a"), (2, "x"), (3, "c")], expected) == (
        "update 2 gave x, where update 2 gives b"
    )
    assert difference([(1, "a"), (3, "c")], expected) is not None
    assert difference(expected[:2], expected) == "2 updates, not 3"


def test_what_does_not_come_is_not_waited_for_for_ever() -> None:
    with pytest.raises(FaultError, match="waited 0 s for nothing"):
        until(lambda: False, "nothing", seconds=0.05)


def test_a_record_is_json_with_a_line_for_each_row(tmp_path: Path) -> None:
    record = {"runs": 2, "rows": [{"run": 1}, {"run": 2}], "ways": {"a": 1}}
    write_record(tmp_path / "record.json", record, ("rows",))
    text = (tmp_path / "record.json").read_text()
    assert json.loads(text) == record
    assert '\n  {"run": 1},\n' in text


def test_each_way_comes_once_in_as_many_runs_and_depends_on_the_number_alone() -> None:
    names = list(WAYS)
    dealt = [way_of(number, names) for number in range(3 * len(names))]
    for begin in range(0, len(dealt), len(names)):
        assert sorted(dealt[begin : begin + len(names)]) == sorted(names)
    assert dealt[: len(names)] != dealt[len(names) : 2 * len(names)]
    assert way_of(40, names) == dealt[40]


def started(kind: type[Session], folder: Path) -> tuple[Session, Path]:
    told = folder / "told"
    told.touch()
    session = kind([sys.executable, "-c", COMMAND, str(told)], folder, "first")
    until(lambda: "begun" in told.read_text(), "the command to begin", 20.0)
    return session, told


@pytest.mark.parametrize(
    ("kind", "error"), [(Pipe, "32"), (FullDisk, "28"), (Disowned, "5")], ids=lambda x: str(x)
)
def test_the_output_is_lost_and_nothing_else_happens(
    tmp_path: Path, kind: type[Session], error: str
) -> None:
    session, told = started(kind, tmp_path)
    try:
        session.lose_output()
        until(lambda: error in told.read_text(), "the output to fail", 20.0)
        assert not session.ended
        session.learner.send_signal(signal.SIGINT)
        assert session.wait(20.0) == 3
    finally:
        session.close()
    assert told.read_text().split() == ["begun", error, "SIGINT"]
    assert not (tmp_path / "first.disk/log").exists()


def test_a_terminal_sends_ctrl_c_and_hangs_up(tmp_path: Path) -> None:
    session, told = started(Terminal, tmp_path)
    assert isinstance(session, Terminal)
    session.press(b"\x03")
    assert session.wait(20.0) == 3
    session.close()
    assert told.read_text().split() == ["begun", "SIGINT"]
    told.unlink()
    (tmp_path / "first.exit").unlink()
    session, told = started(Terminal, tmp_path)
    assert isinstance(session, Terminal)
    session.hang_up()
    assert session.wait(20.0) == 3
    session.close()
    assert "SIGHUP" in told.read_text()


def test_a_terminal_stops_the_command_and_continues_it(tmp_path: Path) -> None:
    session, told = started(Terminal, tmp_path)
    assert isinstance(session, Terminal)
    session.press(b"\x1a")
    until(lambda: session.learner.status() == psutil.STATUS_STOPPED, "the command to stop", 20.0)
    session.press(b"fg\n")
    until(lambda: session.learner.status() != psutil.STATUS_STOPPED, "it to go on", 20.0)
    session.close()
    assert not is_alive(session.learner)
    assert told.read_text().split() == ["begun"]


def test_nohup_ignores_a_hang_up(tmp_path: Path) -> None:
    session, told = started(Nohup, tmp_path)
    session.learner.send_signal(signal.SIGHUP)
    session.learner.send_signal(signal.SIGINT)
    assert session.wait(20.0) == 3
    session.close()
    assert told.read_text().split() == ["begun", "SIGINT"]


def test_processes_that_outlive_the_command_are_known(tmp_path: Path) -> None:
    code = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    session = Session([sys.executable, "-c", code], tmp_path, "first")
    until(lambda: bool(session.look()), "its child", 20.0)
    os.kill(session.learner.pid, signal.SIGKILL)
    assert session.wait(20.0) == -signal.SIGKILL
    left = session.left()
    assert [process.name() for process in left] == ["sleep"]
    left[0].kill()
    until(lambda: not session.left(), "its end", 20.0)
    session.close()


def test_a_wrong_kind_or_way_is_one_line() -> None:
    result = subprocess.run(
        [sys.executable, str(CHAOS), "--ways", "sleep"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "sleep: no such kind or way" in result.stderr
