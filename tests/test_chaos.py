"""Short forms of the chaos runs: real processes, real signals, the same bits."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CHAOS = Path(__file__).parent.parent / "scripts" / "chaos.py"


def chaos(out: Path, *arguments: str) -> dict[str, Any]:
    """The record of a run that must go well."""
    result = subprocess.run(
        [sys.executable, str(CHAOS), *arguments, "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    record: dict[str, Any] = json.loads(out.read_text())
    assert record["same_bits"]
    return record


def test_a_run_that_is_broken_again_and_again_ends_in_the_same_bits(tmp_path: Path) -> None:
    kinds = ["two_workers_killed", "node_killed", "learner_killed_while_it_saves"]
    record = chaos(tmp_path / "chaos.json", "--kinds", ",".join(kinds))
    assert set(record["recovery_seconds"]) == set(kinds)
    # What was lost was given to another worker: at once, or when it took too long.
    assert record["episodes_played_again"] + record["second_workers"] > 0


def test_runs_that_are_ended_in_some_way_are_resumed_with_the_same_bits(tmp_path: Path) -> None:
    ways = ["hang_up", "closed_pipe", "raylet_killed"]
    # The last of these numbers loses its output and then a worker, about which it would speak.
    arguments = ("--ends", "3", "--seed", "9", "--lanes", "3", "--ways", ",".join(ways))
    record = chaos(tmp_path / "ends.json", *arguments)
    assert {ending["way"] for ending in record["endings"]} == set(ways)
    assert record["failures"] == 0
    assert record["lost_updates_at_most"] <= 1
