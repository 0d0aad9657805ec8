"""The tutorial, with shorter runs, in a notebook whose kernel is real."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from command import ROOT
from nbclient import NotebookClient

from distributed_pg.storage.checkpoint import load_checkpoint, weights_checksum
from distributed_pg.storage.run_dir import RunDir

DEADLINE = 600
QUICK = "batch_size=2, frame_limit=400, hidden_units=8, num_workers=1"
SHORTER = {
    "stop_minutes=3": f"{QUICK}, stop_episodes=4",
    "stop_minutes=4": "num_workers=1, stop_episodes=6",
    "stop_minutes=1": f"{QUICK}, stop_episodes=2",
    "episodes=10": "episodes=1, num_workers=1",
    "max_seconds=20": "max_seconds=1",
    "--seeds 0-1 --stop-minutes 2": "--seeds 0 --batch-size 2 --frame-limit 400 --hidden-units 8 "
    "--num-workers 1 --stop-episodes 2",
}
"""What is shortened in the notebook, each in one place."""
# The first run starts a Ray of its own, as a reader's does; the others share this one.
CONNECT = """import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)"""
# The stop button of a notebook sends the kernel a SIGINT.
STOPPED = """import os, signal
stop = lambda record: os.kill(os.getpid(), signal.SIGINT)
result = pg.resume("runs/tutorial", stop_episodes=1000, num_workers=1, callbacks=[stop])
result.interrupted, result.progress.episodes, result.weights_checksum"""
GYMNASIUM = """import gymnasium
env = gymnasium.make("distributed_pg/Pong-v0", frame_skip=2)
int(trained.predict(env.reset(seed=3)[0], deterministic=True)[0]) in (0, 1)"""


@pytest.mark.slow
def test_the_tutorial_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel that nbclient starts is the python of the path.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    reader: Any = nbformat
    notebook = reader.read(ROOT / "docs/tutorial.ipynb", as_version=4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(codes) == 10
    for long, short in SHORTER.items():
        places = [cell for cell in codes if long in cell.source]
        assert len(places) == 1, long
        places[0].source = places[0].source.replace(long, short)
    assert not [cell.source for cell in codes if re.search("stop.minutes", cell.source)]
    after_first_run = 1 + notebook.cells.index(codes[1])
    notebook.cells.insert(after_first_run, reader.v4.new_code_cell(CONNECT))
    notebook.cells += (more := [*map(reader.v4.new_code_cell, (GYMNASIUM, STOPPED))])
    client = NotebookClient(notebook, timeout=DEADLINE, resources={"metadata": {"path": tmp_path}})
    client.execute()

    _, trained, resumed, plotted, game, evaluated, played, weights, warm, swept = map(shown, codes)
    made, stopped = map(shown, more)
    assert "running mean" in trained["text/html"]
    assert "<pre" in trained["text/html"]
    assert re.fullmatch(r"\(6, '[0-9a-f]{16}'\)", resumed["text/plain"])
    assert all("image/png" in cell for cell in (plotted, weights, swept))
    assert "image/gif" in game
    for cell in (evaluated, played, warm):
        assert (
            -21
            <= float(cell["text/plain"].partition("(")[2].rstrip(")") or cell["text/plain"])
            <= 21
        )
    assert made["text/plain"] == "True"
    checkpoint = load_checkpoint(RunDir.open(tmp_path / "runs/tutorial").newest_checkpoint())
    checksum = weights_checksum(checkpoint.state.policy)
    assert stopped["text/plain"] == f"(True, 8, '{checksum}')"


def shown(cell: Any) -> dict[str, str]:
    """What a cell shows: of each kind the last one."""
    kinds: dict[str, str] = {}
    for output in cell.outputs:
        kinds |= output.get("data", {})
    return kinds
