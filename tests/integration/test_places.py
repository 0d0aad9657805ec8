"""Containers, batch jobs and shared machines: where a run may find itself."""

import os
import subprocess
from pathlib import Path

import pytest
from command import COMMAND, DEADLINE, QUICK, assert_one_line_error, distributed_pg

from distributed_pg.runtime import _ray_private
from distributed_pg.runtime.session import usable_cpus

PLACE = """
set -e
mount --bind home home
mount -o remount,ro,bind home
echo 50000 > quota
echo 100000 > period
if [ -e /sys/fs/cgroup/cpu/cpu.cfs_quota_us ]; then
    mount --bind quota /sys/fs/cgroup/cpu/cpu.cfs_quota_us
    mount --bind period /sys/fs/cgroup/cpu/cpu.cfs_period_us
elif [ -e /sys/fs/cgroup/cpu.max ]; then
    echo 50000 100000 > quota
    mount --bind quota /sys/fs/cgroup/cpu.max
fi
exec unshare --user --map-user=12345 --map-group=12345 "$@"
"""
"""A home that cannot be written, half a CPU, and a user whom the system does not know."""


def _can_make_places() -> bool:
    made = ["unshare", "--mount", "unshare", "--user", "--map-user=12345", "true"]
    return os.name == "posix" and subprocess.run(made, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(not _can_make_places(), reason="needs namespaces, and root")


@needs_namespaces
def test_half_a_cpu_no_home_no_user_and_a_proxy(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:9")
    train = [*COMMAND, "train", *QUICK[2:], "--stop-episodes", "2", "--run-dir", "run"]
    result = subprocess.run(
        ["unshare", "--mount", "bash", "-c", PLACE, "place", *train],  # noqa: S607
        cwd=tmp_path,
        env=os.environ
        | proxies
        | {"HOME": str(home), "RAY_grpc_enable_http_proxy": "1", "RAY_AUTH_TOKEN": "short"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "workers 1 " in result.stdout
    assert not list(home.iterdir())


WRITERS = (
    "record pretrained --max-seconds 1 --out disk/game.mp4",
    "export pretrained --out disk/policy.safetensors",
    "export pretrained --out disk/save.p",
)


@needs_namespaces
@pytest.mark.parametrize("command", WRITERS)
def test_a_read_only_disk_is_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o ro tmpfs disk && exec "$@"'
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *COMMAND, *command.split()],  # noqa: S607
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert_one_line_error(result, 1, "disk/.*Read-only file system")


@pytest.mark.parametrize(
    ("limit", "cpus", "expected"),
    [(0.5, 2, 1), (0.01, 64, 1), (1.9, 64, 1), (3.7, 64, 3), (None, 64, 64), (64.0, 4, 4)],
)
def test_a_limit_is_rounded_down_to_one_cpu_at_least(
    monkeypatch: pytest.MonkeyPatch, limit: float | None, cpus: int, expected: int
) -> None:
    monkeypatch.setattr(_ray_private, "limited_cpus", lambda: limit)
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cpus)), raising=False)
    assert usable_cpus() == expected


def test_a_batch_job_that_may_use_one_core_has_one(tmp_path: Path) -> None:
    script = "from distributed_pg.runtime.session import usable_cpus; print(usable_cpus())"
    command = ["taskset", "--cpu-list", "0", COMMAND[0], "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "1\n"


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_that_ray_cannot_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    train = ("train", *QUICK)
    monkeypatch.setenv(variable, str(long))
    result = distributed_pg(*train, cwd=tmp_path)
    assert_one_line_error(result, 1, rf"{variable}: .*xxx is too long for Ray's sockets")
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    result = distributed_pg(*train, cwd=tmp_path)
    assert_one_line_error(result, 1, rf"{variable}: .*nowhere is not a writable folder")
