"""The public face in a notebook whose kernel is real, and in a script."""

import os
import subprocess
import sys
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
    "result = pg.resume('run', stop_episodes=8)\nresult.progress.episodes",
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
    _, trained, resumed, evaluated, plotted, predicted, stopped = map(_shown, notebook.cells)
    assert "running mean" in trained["text/html"]
    assert "<pre" in trained["text/html"]
    assert resumed["text/plain"] == "8"
    assert evaluated["text/plain"] == "2"
    assert "image/png" in plotted
    assert predicted["text/plain"] == "True"
    checkpoint = load_checkpoint(RunDir.open(tmp_path / "run").newest_checkpoint())
    checksum = weights_checksum(checkpoint.state.policy)
    assert stopped["text/plain"] == f"(True, 10, '{checksum}')"


def _shown(cell: Any) -> dict[str, str]:
    """What a cell shows: of each kind the last one."""
    kinds: dict[str, str] = {}
    for output in cell.outputs:
        kinds |= output.get("data", {})
    return kinds


SCRIPT = """
import logging, sys
import distributed_pg as pg
if __name__ == "__main__":
    if "logging" in sys.argv:
        logging.basicConfig(level="INFO", format="%(name)s says %(message)s", stream=sys.stdout)
    settings = dict({settings})
    reporter = None if "None" in sys.argv else "auto"
    pg.train(pg.TrainConfig(**settings, run_dir=sys.argv[1]), reporter=reporter)
    print("trained")
"""


@pytest.mark.parametrize("how", ["auto", "logging", "None"])
def test_a_script_shows_lines_unless_it_says_otherwise(tmp_path: Path, how: str) -> None:
    """With two workers on one CPU there is something to warn of."""
    script = tmp_path / "script.py"
    settings = SETTINGS.replace("num_workers=1", f"num_workers={1 + (os.cpu_count() or 1)}")
    script.write_text(SCRIPT.format(settings=settings))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run"), how],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-1] == "trained"
    warned = [line for line in lines if "more workers than CPUs" in line]
    updates = [line for line in lines if " update 3 episodes 6 running mean " in line]
    assert len(updates) == (how != "None")
    assert len(warned) == (how != "None")
    assert ("says num_workers" in "".join(warned)) == (how == "logging")
