"""A short form of the chaos run: real processes, real signals, the same bits."""

import json
import subprocess
import sys
from pathlib import Path

CHAOS = Path(__file__).parent.parent / "scripts" / "chaos.py"


def test_a_run_that_is_broken_in_every_way_ends_in_the_same_bits(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    arguments = ("--minutes", "0", "--learner-kills", "2", "--out", str(out))
    chaos = subprocess.run(
        [sys.executable, str(CHAOS), *arguments], capture_output=True, text=True, check=False
    )
    assert chaos.returncode == 0, chaos.stdout + chaos.stderr
    report = json.loads(out.read_text())
    assert report["same_bits"]
    assert set(report["recovery_seconds"]) == {
        "worker_killed",
        "worker_stopped",
        "node_killed",
        "learner_killed",
        "learner_killed_while_it_saves",
    }
    # What was lost was given to another worker: at once, or when it took too long.
    assert report["episodes_played_again"] + report["second_workers"] > 0
