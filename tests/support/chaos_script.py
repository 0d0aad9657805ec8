"""Runs ``scripts/chaos.py`` for tests."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from command import ROOT

CHAOS = ROOT / "scripts" / "chaos.py"


def chaos(out: Path, *arguments: str) -> dict[str, Any]:
    """Run the script, check that it succeeded, and return its record."""
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
