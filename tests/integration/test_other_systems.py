"""Systems that we do not run on: what they lack is never asked for."""

import subprocess
import sys
from pathlib import Path

from command import DEADLINE, SUPPORT

LIKE_WINDOWS = """
import builtins, os, pathlib, signal, sys

LACKING = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp"}
real_import, real_open = builtins.__import__, os.open

def lacking(name, globals=None, *rest):
    if name.partition(".")[0] in LACKING:
        if str((globals or {}).get("__name__")).startswith("distributed_pg"):
            raise ImportError(f"no module named {name}")
    return real_import(name, globals, *rest)

def no_folder(path, *rest, **how):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return real_open(path, *rest, **how)

builtins.__import__ = lacking
os.open = no_folder
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGKILL"):
    delattr(signal, name)
for name in ("O_DIRECTORY", "pidfd_open"):
    delattr(os, name)
"""
IMPORT_ALL = """
import importlib, pkgutil
import distributed_pg
for module in pkgutil.walk_packages(distributed_pg.__path__, "distributed_pg."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
"""
TRAIN = """
sys.path.insert(0, {tests!r})
from dataclasses import replace
from pathlib import Path
from distributed_pg.cli.stop_signals import StopSignals
from distributed_pg.config import TrainConfig
from distributed_pg.training.learner import Learner
from distributed_pg.storage.open_run import open_run
from distributed_pg.algo.state import TrainingState
from distributed_pg.monitoring.reporter import NullReporter
from simulated_pool import SimulatedWorkerPool, play_for_real

config = TrainConfig(
    batch_size=2, frame_limit=400, hidden_units=8, stop_episodes=4, run_dir=Path("run")
)
with StopSignals("Stopping"), open_run(config) as run_dir:
    state = TrainingState.initial(config)
    saved = run_dir.save(config, state, best=False)
    cluster = SimulatedWorkerPool(play_for_real(config), 2)
    learner = Learner(config, state, cluster, run_dir, NullReporter(), saved, cluster.clock)
    assert learner.run(lambda: False)
    print(learner.save().name)
"""


def run(script: str, cwd: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-c", LIKE_WINDOWS + script],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_module_is_imported_without_what_windows_lacks(tmp_path: Path) -> None:
    imported = run(IMPORT_ALL, tmp_path).split()
    assert {
        "distributed_pg.storage.run_lock",
        "distributed_pg.system_info",
        "distributed_pg.cli.main",
    } <= {*imported}


def test_a_run_is_made_and_saved_without_what_windows_lacks(tmp_path: Path) -> None:
    said = run(TRAIN.format(tests=str(SUPPORT)), tmp_path)
    assert said.split()[-1] == "update-00000002.safetensors"
