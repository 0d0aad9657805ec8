"""Runs the ``distributed-pg`` command and checks its output."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distributed_pg.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
SUPPORT = Path(__file__).resolve().parent
"""The folder of the test helpers."""
COMMAND = [sys.executable, "-m", "distributed_pg"]
QUICK = ["--num-workers", "1", "--batch-size", "1", "--frame-limit", "400", "--hidden-units", "8"]
DEADLINE = 240.0
"""Seconds before a wait fails. Ray alone may take a minute to start when all cores are busy."""


def distributed_pg(
    *arguments: str | Path, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return run(*COMMAND, *arguments, cwd=cwd, **environment)


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,  # some commands do several things
        check=False,
    )


def until(
    condition: Callable[[], bool],
    process: subprocess.Popen[Any] | None = None,
    seconds: float = DEADLINE,
    every: float = 0.05,
) -> None:
    """Wait until ``condition`` holds; fail if ``process`` ends before.

    A condition that starts a process to find out should be asked less often.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(every)


def assert_one_line_error(
    result: subprocess.CompletedProcess[str], code: int, pattern: str
) -> None:
    assert result.returncode == code, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert re.search(pattern, lines[0]), lines[0]
    assert lines[0].startswith("distributed-pg: error: ")


def metrics(run: Path) -> list[dict[str, Any]]:
    """The complete lines of metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def python(code: str, **environment: str) -> str:
    """Run the code in a separate process and return its output."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def assert_refused(
    capsys: pytest.CaptureFixture[str], *arguments: str, code: int, pattern: str
) -> None:
    """Run the command in this process, where it prints one line of errors and nothing else."""
    returned = main(arguments)
    result = subprocess.CompletedProcess(arguments, returned, *capsys.readouterr())
    assert_one_line_error(result, code, pattern)
    assert result.stdout == ""
