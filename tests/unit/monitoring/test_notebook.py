"""The panel in a notebook's cell."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from records import record_of
from simulated_pool import Clock

from distributed_pg.config import TrainConfig
from distributed_pg.monitoring.notebook import NotebookDisplay
from distributed_pg.monitoring.panel import RunPanel


def test_the_panel_is_sent_again_only_when_it_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def display(content: str, display_id: bool) -> Any:
        sent.append(content)
        return SimpleNamespace(update=sent.append)

    parts = SimpleNamespace(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=parts))
    clock = Clock()
    monkeypatch.setattr("distributed_pg.monitoring.panel.time", SimpleNamespace(monotonic=clock))
    with NotebookDisplay(RunPanel(TrainConfig())) as cell:
        cell.refresh()
        assert len(sent) == 1
        clock.now = 1.0  # the panel counts the seconds until the first update
        cell.refresh()
        cell.updated(record_of(1))
        for _ in range(3):
            cell.refresh()
    assert len(sent) == 3
    assert "running mean" not in sent[1]
    assert "running mean" in sent[2]
