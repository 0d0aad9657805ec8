"""The public face in a notebook whose kernel is real."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from distributed_pg.storage.checkpoint import load_checkpoint, weights_checksum
from distributed_pg.storage.run_dir import RunDir

DEADLINE = 600
SETTINGS = "batch_size=2, frame_limit=400, hidden_units=8, num_workers=1, stop_episodes=6"
CELLS = (
    "import distributed_pg as pg",
    f"result = pg.train(pg.TrainConfig({SETTINGS}, run_dir='run'))",
    "pg.evaluate('run', 2, num_workers=1).episodes",
    "pg.plot('run', by=('frames', 'minutes'))",
    "import gymnasium\nenv = gymnasium.make('distributed_pg/Pong-v0', frame_skip=2)\n"
    "int(pg.load_policy('run').predict(env.reset(seed=3)[0], deterministic=True)[0]) in (0, 1)",
    # The stop button of a notebook sends the kernel a SIGINT.
    "import os, signal\nstop = lambda record: os.kill(os.getpid(), signal.SIGINT)\n"
    "result = pg.resume('run', stop_episodes=1000, callbacks=[stop])\n"
    "result.interrupted, result.progress.episodes, result.weights_checksum",
)


@pytest.mark.slow
def test_a_notebook_trains_evaluates_plots_and_predicts(tmp_path: Path) -> None:
    v4: Any = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_code_cell(code) for code in CELLS])
    client = NotebookClient(notebook, timeout=DEADLINE, resources={"metadata": {"path": tmp_path}})
    client.execute()
    _, trained, evaluated, plotted, predicted, stopped = map(_shown, notebook.cells)
    assert "running mean" in trained["text/html"]
    assert "<pre" in trained["text/html"]
    assert evaluated["text/plain"] == "2"
    assert "image/png" in plotted
    assert predicted["text/plain"] == "True"
    checkpoint = load_checkpoint(RunDir.open(tmp_path / "run").newest_checkpoint())
    checksum = weights_checksum(checkpoint.state.policy)
    assert stopped["text/plain"] == f"(True, 8, '{checksum}')"


def _shown(cell: Any) -> dict[str, str]:
    """What a cell shows: of each kind the last one."""
    kinds: dict[str, str] = {}
    for output in cell.outputs:
        kinds |= output.get("data", {})
    return kinds
