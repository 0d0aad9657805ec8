"""The lock of a run's folder between processes, and on a system that has no fcntl."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import run

from distributed_pg.errors import UsageError
from distributed_pg.storage.run_lock import locked

HOLD = """
import sys
from pathlib import Path
from distributed_pg.storage.run_lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    holder: Any
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(UsageError, match=f"is in use by process {holder.pid} on "):
            locked(tmp_path).__enter__()
        holder.kill()
        holder.wait()
    with locked(tmp_path):  # it ended with its process
        pass


WITHOUT_FCNTL = """
import logging, sys, warnings
warnings.simplefilter("ignore")
logging.basicConfig(stream=sys.stdout)
sys.modules["fcntl"] = None
from pathlib import Path
from distributed_pg.storage.run_dir import RunDir
with RunDir(Path(sys.argv[1])).lock():
    pass
"""


def test_a_system_without_fcntl_can_train(tmp_path: Path) -> None:
    result = run(sys.executable, "-c", WITHOUT_FCNTL, tmp_path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "does not support locks" in result.stdout  # Windows has its own, which filelock uses
