"""The lock of a run's folder, on file systems and systems that know none too."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distributed_pg.errors import RunError, UsageError
from distributed_pg.storage.run_lock import locked

HOLD = """
import sys
from pathlib import Path
from distributed_pg.storage.run_lock import locked
with locked(Path(sys.argv[1]), print):
    print("locked", flush=True)
    sys.stdin.read()
"""


def answer(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have the system answer so where a lock is asked for."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_once_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    answer(monkeypatch, number)
    told: list[str] = []
    with locked(tmp_path, told.append), locked(tmp_path, lambda _: None):
        pass
    (line,) = told
    assert line.startswith(f"{tmp_path}/lock: the file system knows no locks (")
    assert os.strerror(number) in line


def test_any_other_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, errno.EIO)
    with pytest.raises(RunError, match=r"lock: cannot be locked \(Input/output error\)"):
        locked(tmp_path, pytest.fail).__enter__()


def test_the_same_process_cannot_lock_twice(tmp_path: Path) -> None:
    with (
        locked(tmp_path, pytest.fail),
        pytest.raises(UsageError, match=f"{tmp_path} is in use by process {os.getpid()} on "),
        locked(tmp_path, pytest.fail),
    ):
        pass
    with locked(tmp_path, pytest.fail):
        pass


def test_who_is_refused_does_not_harm_the_name_of_the_holder(tmp_path: Path) -> None:
    process: Any
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        for _ in range(2):
            with pytest.raises(UsageError, match=f"in use by process {process.pid} on "):
                locked(tmp_path, pytest.fail).__enter__()
        process.stdin.close()
    with locked(tmp_path, pytest.fail):
        pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gone/lock: cannot be locked \(No such file"):
        locked(tmp_path / "gone", pytest.fail).__enter__()
    (tmp_path / "lock").mkdir()
    with pytest.raises(RunError, match=r"lock: cannot be locked \(Is a directory"):
        locked(tmp_path, pytest.fail).__enter__()


WITHOUT_FCNTL = """
import sys, warnings
warnings.simplefilter("ignore")
sys.modules["fcntl"] = None
from pathlib import Path
from distributed_pg.storage.run_dir import RunDir
with RunDir(Path(sys.argv[1])).lock(print):
    pass
"""


def test_a_system_without_fcntl_can_train(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "knows no locks" in result.stdout  # Windows has its own, which filelock uses
