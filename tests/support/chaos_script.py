"""``scripts/chaos.py`` as tests run it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from command import ROOT

CHAOS = ROOT / "scripts" / "chaos.py"


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
