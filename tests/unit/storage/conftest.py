"""Shared by the tests of storage."""

from pathlib import Path

import pytest


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where nothing is yet; and an empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return f"memory://{tmp_path.name}/run"
