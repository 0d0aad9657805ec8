"""The command as tests give it, and what they expect of it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "distributed_pg"]
QUICK = ["--num-workers", "1", "--batch-size", "1", "--frame-limit", "400", "--hidden-units", "8"]
DEADLINE = 240.0
"""Seconds after which what was waited for counts as missing. Ray alone may take a minute to start,
with all cores busy."""


def distributed_pg(
    *arguments: str | Path, cwd: Path, timeout: float = DEADLINE, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def assert_one_line_error(
    result: subprocess.CompletedProcess[str], code: int, pattern: str
) -> None:
    assert result.returncode == code, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert re.search(pattern, lines[0]), lines[0]
    assert lines[0].startswith("distributed-pg: error: ")


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl but for one that is not complete."""
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
