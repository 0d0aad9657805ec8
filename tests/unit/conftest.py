"""Holds the unit tests to what they are: no processes, no Ray."""

import subprocess
import sys
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> NoReturn:
        pytest.fail("a unit test starts no process; this one belongs into tests/integration")

    monkeypatch.setattr(subprocess.Popen, "__init__", refused)
    if "ray" in sys.modules:
        monkeypatch.setattr("ray.init", refused)
