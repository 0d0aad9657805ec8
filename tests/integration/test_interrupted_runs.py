"""A run that is killed, asked to stop, or begun twice."""

import contextlib
import signal
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import learner_runs
import psutil
import pytest
from command import COMMAND, QUICK, assert_one_line_error, distributed_pg, metrics, until


def wait_for(path: Path, lines: int, process: subprocess.Popen[str]) -> None:
    until(lambda: path.exists() and len(path.read_text().splitlines()) >= lines, process)


def start_endless_run(folder: Path, *settings: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*COMMAND, "train", *QUICK, *settings, "--run-dir", "run"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(folder / "run/metrics.jsonl", 2, process)
    return process


def names_and_addresses(process: psutil.Process) -> tuple[list[str], set[str]]:
    """Of the process and all it started: their names, and where they wait for connections."""
    names, addresses = [], set()
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            sockets = one.net_connections()
            addresses |= {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}
            names.append(one.name())
    return names, addresses


def test_a_run_is_on_loopback_only_without_idle_workers_alone_in_its_folder_and_saves_on_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a job on the head of a cluster; it must not keep a local run from having CPUs.
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 0}')
    process = start_endless_run(tmp_path)
    names, addresses = names_and_addresses(psutil.Process(process.pid))
    second = distributed_pg("train", "--resume", "run", cwd=tmp_path)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Saving and stopping" in output
    assert "Stopped on request after" in output
    updates = metrics(tmp_path / "run")[-1]["update"]
    assert (tmp_path / f"run/checkpoints/update-{updates:08}.safetensors").is_file()
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    kinds = Counter(name.split(".")[0] for name in names[1:])  # the first is the learner
    assert kinds.pop("ray::RolloutWorker") == 1
    assert set(kinds) == {"gcs_server", "raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent"}
    assert_one_line_error(second, 2, rf"run is in use by process {process.pid} on ")


@pytest.mark.exhaustive
def test_a_killed_run_goes_on_from_its_last_checkpoint_with_the_same_bits(tmp_path: Path) -> None:
    settings = ("--checkpoint-every", "2", "--keep", "1", "--policy-lag", "1")
    process = start_endless_run(tmp_path, *settings)
    wait_for(tmp_path / "run/metrics.jsonl", 5, process)
    process.kill()
    process.communicate(timeout=60)
    before = metrics(tmp_path / "run")
    stop = len(before) + 3
    resume = ("train", "--resume", "run", "--stop-episodes", str(stop))
    result = distributed_pg(*resume, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    whole = replace(learner_runs.QUICK, stop_episodes=stop)
    _, recorder, _ = learner_runs.run(whole, tmp_path / "whole")
    resumed, expected = metrics(tmp_path / "run"), recorder.records
    assert len(resumed) == len(expected) == stop
    for ours, theirs in zip(resumed, expected, strict=True):
        assert ours["weights_checksum"] == theirs.weights_checksum
        assert ours["running_mean"] == theirs.running_mean


def test_a_second_signal_exits_at_once_and_takes_the_workers_along(tmp_path: Path) -> None:
    process = start_endless_run(tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    playing = [child for child in children if "RolloutWorker" in " ".join(child.cmdline())]
    assert len(playing) == 1
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    while "Saving and stopping" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    _, alive = psutil.wait_procs(playing, timeout=30)
    assert not alive
