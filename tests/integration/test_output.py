"""Whoever reads the output may go, sleep, or be unable to show it: that harms no run."""

import json
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from command import COMMAND, DEADLINE, QUICK, SUPPORT, metrics, until
from records import record_of
from rich.console import RenderableType
from terminals import Terminal

from distributed_pg.monitoring.display_thread import DisplayThread
from distributed_pg.monitoring.streams import OutputError
from distributed_pg.storage.metrics import UpdateRecord

TRAIN = [*COMMAND, "train", *QUICK, "--run-dir", "run"]
READER_GONE = 128 + signal.SIGPIPE


def checkpoint(run: Path, update: int) -> Path:
    return run / f"checkpoints/update-{update:08}.safetensors"


def test_a_reader_that_goes_ends_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*TRAIN, "--stop-episodes", "10"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().endswith(" New run: run\n")
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(DEADLINE) == 0
    first, *last = said.splitlines()
    assert re.fullmatch(
        r"standard output cannot be written \(Broken pipe\)(; training goes on without it)?", first
    )
    assert last[0] == "Done after 10 episodes, 10 updates."
    assert len(metrics(tmp_path / "run")) == 10
    assert checkpoint(tmp_path / "run", 10).is_file()


@pytest.mark.exhaustive
def test_a_run_outlives_its_terminal_and_a_worker_where_hang_ups_are_ignored(
    tmp_path: Path,
) -> None:
    # What the run says of the worker cannot be shown any more.
    shell = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    terminal = Terminal([*shell, *TRAIN, "--stop-episodes", "60"], tmp_path)
    until(lambda: len(_lines(tmp_path)) > 2, terminal.process)
    terminal.close()
    children = psutil.Process(terminal.process.pid).children(recursive=True)
    (worker,) = (child for child in children if "RolloutWorker" in child.name())
    worker.kill()
    assert terminal.process.wait(DEADLINE) == 0
    assert checkpoint(tmp_path / "run", 60).is_file()


@pytest.mark.exhaustive
def test_a_terminal_that_is_stopped_stops_nothing(tmp_path: Path) -> None:
    terminal = Terminal([*TRAIN, "--stop-episodes", "20"], tmp_path)
    until(lambda: len(_lines(tmp_path)) > 2, terminal.process)
    terminal.press(b"\x13")  # Ctrl-S
    assert terminal.process.wait(DEADLINE) == 0
    assert checkpoint(tmp_path / "run", 20).is_file()
    terminal.close()


@pytest.mark.parametrize(
    ("arguments", "to", "code", "said"),
    [
        (["--help"], "/dev/full", 1, "standard output cannot be written (No space left on device)"),
        (["plot", "RUN", "--out", "curve.png"], "/dev/full", 1, "(No space left on device)"),
        (["--help"], "nobody", READER_GONE, ""),
        (["plot", "RUN", "--out", "curve.png"], "nobody", READER_GONE, ""),
        (["train", "--gamma", "2"], "/dev/full", 2, "--gamma: 2.0 is not a number"),
        (["train", "--gamma", "2"], "closed", 2, "--gamma: 2.0 is not a number"),
        (["--help"], "closed", 0, ""),
    ],
)
def test_where_the_output_goes_nowhere_there_is_one_line_or_none(
    tmp_path: Path, arguments: list[str], to: str, code: int, said: str
) -> None:
    with (tmp_path / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps(asdict(record_of(n))) + "\n" for n in range(1, 200))
    arguments = [str(tmp_path / "metrics.jsonl") if a == "RUN" else a for a in arguments]
    command = shlex.join([*COMMAND, *arguments])
    into = {"nobody": "| true; exit ${PIPESTATUS[0]}", "closed": ">&-"}.get(to, f"> {to}")
    result = subprocess.run(
        ["/bin/bash", "-c", f"{command} {into}"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == bool(said)


SHOW = """
import sys
sys.path.insert(0, {tests!r})
from records import record_of
from distributed_pg.config import TrainConfig
from distributed_pg.monitoring.panel import RunPanel
from distributed_pg.monitoring.terminal import TrainDisplay
from distributed_pg.monitoring.streams import checked_streams
from distributed_pg.cli.console import console
out = console()
live = out.is_terminal and not out.is_dumb_terminal
with checked_streams(), TrainDisplay(out, RunPanel(TrainConfig()), live=live) as display:
    for update in range(1, 9):
        display.updated(record_of(update, running_mean=float(update)))
        display.refresh()
    display.message("an episode " + chr(8230))
"""
BRAILLE = re.compile("[\u2801-\u28ff]")


@pytest.mark.parametrize(
    ("environment", "braille", "live"),
    [
        ({"PYTHONIOENCODING": "utf-8"}, True, True),
        ({"PYTHONIOENCODING": "iso-8859-1"}, False, True),
        ({"PYTHONIOENCODING": "ascii"}, False, True),
        ({"PYTHONIOENCODING": "utf-8", "TERM": "dumb"}, False, False),
        ({"PYTHONIOENCODING": "ascii", "TERM": "dumb"}, False, False),
    ],
)
def test_a_terminal_is_shown_what_it_can_show(
    tmp_path: Path, environment: dict[str, str], braille: bool, live: bool
) -> None:
    script = SHOW.format(tests=str(SUPPORT))
    variables = {"TERM": "xterm-256color"} | environment
    terminal = Terminal([sys.executable, "-c", script], tmp_path, **variables)
    shown = terminal.end(DEADLINE).decode(environment["PYTHONIOENCODING"])
    assert terminal.process.returncode == 0, shown
    assert bool(BRAILLE.search(shown)) == braille
    assert ("Ctrl-C saves" in shown) == live
    assert "an episode" in shown
    assert ("*" in shown) == (live and not braille)
    assert "\x1b[?25l" not in shown  # who is killed cannot show the cursor again


class Picture:
    """A display that remembers, and may fail or hang."""

    def __init__(self, do: Callable[[], object] = lambda: None) -> None:
        self.seen: list[object] = []
        self._do = do

    def __enter__(self) -> "Picture":
        self.seen.append("begin")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.seen.append("end" if kind is None else kind)

    def starting(self, place: str, episodes: int) -> None:
        self.seen.append((place, episodes))

    def message(self, text: str) -> None:
        self._do()
        self.seen.append(text)

    def updated(self, state: UpdateRecord) -> None:
        self.seen.append(state.update)

    def refresh(self) -> None:
        self.seen.append("refresh")

    def conclude(self, lines: Sequence[RenderableType]) -> None:
        self.seen += lines


def test_a_display_is_drawn_in_order() -> None:
    picture, warnings = Picture(), list[RenderableType]()
    with DisplayThread(picture, warnings.append) as thread:
        thread.starting("run", 7)
        thread.message("one")
        thread.updated(record_of(2))
        thread.conclude(["three"])
    seen = [what for what in picture.seen if what != "refresh"]
    assert seen == ["begin", ("run", 7), "one", 2, "three", "end"]
    assert not thread.hangs
    assert not warnings


def _lose_output() -> None:
    raise OutputError(OSError(5, "Input/output error"))


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        (_lose_output, "standard output cannot be written (Input/output error)"),
        (lambda: [][0], "the display failed (IndexError: list index out of range)"),
    ],
)
def test_a_display_that_fails_is_given_up_once(do: Callable[[], object], reason: str) -> None:
    told, warnings = threading.Event(), list[RenderableType]()
    picture = Picture(do)

    def warn(text: RenderableType) -> None:
        warnings.append(text)
        told.set()

    with DisplayThread(picture, warn) as thread:
        thread.message("one")
        assert told.wait(DEADLINE)
        thread.message("two")
        thread.updated(record_of(3))
        thread.conclude(["three", "four"])
    given_up = f"{reason}; training goes on without it"
    assert warnings == [given_up, "one", "two", "three", "four"]
    assert "two" not in picture.seen
    assert not thread.hangs


def test_a_display_that_hangs_is_waited_for_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed_pg.monitoring.display_thread.CLOSE_SECONDS", 0.05)
    wake = threading.Event()
    with DisplayThread(Picture(wake.wait), lambda _: None) as thread:
        for number in range(20_000):  # more than are kept
            thread.message(f"{number}")
    assert thread.hangs
    wake.set()


def _lines(folder: Path) -> list[str]:
    path = folder / "run/metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []
