"""Holds the unit tests to what they are: no processes, no Ray, no waiting for the disk."""

import logging
import os
import subprocess
import sys
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> NoReturn:
        pytest.fail("a unit test starts no process; this one belongs into tests/integration")

    monkeypatch.setattr(subprocess.Popen, "__init__", refused)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    if "ray" in sys.modules:
        monkeypatch.setattr("ray.init", refused)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    """Have ``caplog`` hold all that the user would be shown."""
    caplog.set_level(logging.INFO, "distributed_pg")
