"""The lock of a run's folder, on file systems that know none too."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from distributed_pg.errors import RunError, UsageError
from distributed_pg.storage.run_lock import locked


def answer(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have the system answer so where a lock is asked for."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_trained_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    answer(monkeypatch, number)
    with locked(tmp_path):
        (line,) = caplog.messages
        assert line.startswith(f"{tmp_path}/lock: the file system does not support locks (")
        assert os.strerror(number) in line
        with locked(tmp_path):
            pass


def test_any_other_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, errno.EIO)
    with pytest.raises(RunError, match=r"lock: cannot be locked \(Input/output error\)"):
        locked(tmp_path).__enter__()


def test_a_folder_cannot_be_locked_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with locked(tmp_path):
        for _ in range(2):  # who is refused does not harm the name of the holder
            with pytest.raises(UsageError, match=f"{tmp_path} is in use by process {os.getpid()}"):
                locked(tmp_path).__enter__()
    with locked(tmp_path):
        pass
    assert caplog.messages == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gone/lock: cannot be locked \(No such file"):
        locked(tmp_path / "gone").__enter__()
    (tmp_path / "lock").mkdir()
    with pytest.raises(RunError, match=r"lock: cannot be locked \(Is a directory"):
        locked(tmp_path).__enter__()
