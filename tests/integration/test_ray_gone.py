"""Ray's own processes die under a run: it saves, and goes on with the same bits or says why not."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import learner_runs
import psutil
import pytest
import ray
from command import COMMAND, DEADLINE, QUICK, distributed_pg, metrics, run, until
from ray.cluster_utils import Cluster
from ray_cluster import ray_cluster
from terminals import Terminal

from distributed_pg.errors import RunError, UsageError
from distributed_pg.runtime import health, session
from distributed_pg.runtime._ray_private import temporary_folder
from distributed_pg.runtime.health import ClusterWatch, RayLostError
from distributed_pg.storage.checkpoint import load_checkpoint
from distributed_pg.training.polled_clock import PolledClock

TRAIN = [*COMMAND, "train", *QUICK, "--run-dir", "run"]


def start(
    folder: Path,
    *arguments: str,
    **environment: str,
) -> subprocess.Popen[str]:
    """A run that has made three updates."""
    process = subprocess.Popen(
        [*TRAIN, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until(partial(_has, folder / "run", 2), process)
    return process


def lines(run: Path) -> int:
    return len(metrics(run)) if (run / "metrics.jsonl").exists() else 0


def _has(run: Path, most: int) -> bool:
    return lines(run) > most


def daemon(process: subprocess.Popen[Any], name: str) -> psutil.Process:
    children = psutil.Process(process.pid).children(recursive=True)
    return next(child for child in children if name in (child.name(), *child.cmdline()[:1]))


def session_folders(pid: int) -> list[Path]:
    return list(Path(temporary_folder() or "/nowhere", "ray").glob(f"session_*_{pid}"))


def test_a_run_outlives_each_of_its_own_rays_processes(tmp_path: Path) -> None:
    process = start(tmp_path, "--stop-episodes", "1000000")
    begun = psutil.Process(process.pid).create_time()
    for name in ("raylet", "gcs_server"):
        daemon(process, name).kill()
        # An answer or two may come in before it is noticed.
        more = lines(tmp_path / "run") + 10
        until(partial(_has, tmp_path / "run", more), process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, said
    assert said.count("is saved, and Ray is restarted") == 2
    check_nothing_of_rays(said)
    assert not (tmp_path / "run/scrape_target.yml").exists()
    made = metrics(tmp_path / "run")
    assert load_checkpoint(
        tmp_path / f"run/checkpoints/update-{len(made):08}.safetensors"
    ).state.progress.episodes == len(made)
    # Process ids come again: an older folder may be of another.
    assert not [f for f in session_folders(process.pid) if f.stat().st_mtime > begun]
    whole = learner_runs.checksums(replace(learner_runs.QUICK, stop_episodes=len(made)))
    assert [m["weights_checksum"] for m in made] == whole


class Children:
    """The children of a run's raylet, by what they are taken for."""

    def __init__(self) -> None:
        self.agents: set[int] = set()
        self.workers: set[int] = set()
        self.starting: set[int] = set()
        """Workers that have no title yet; their command line names the agents' ports."""

    def look(self, pid: int) -> None:
        with suppress(psutil.Error, StopIteration):
            raylet = next(c for c in psutil.Process(pid).children() if c.name() == "raylet")
            for child in raylet.children():
                with suppress(psutil.Error):
                    command = child.cmdline()
                    if command == raylet.cmdline():
                        continue  # forked, and about to become one or the other
                    (self.agents if health.is_agent(command) else self.workers).add(child.pid)
                    if any("default_worker.py" in word for word in command):
                        self.starting.add(child.pid)


def test_a_terminal_that_goes_takes_nothing_of_ray_along(tmp_path: Path) -> None:
    """A shell sends its hang-up to all of a job's processes. The run itself saves and stops."""
    children = Children()
    terminal = Terminal([*TRAIN, "--stop-episodes", "1000000"], tmp_path)
    process = terminal.process

    def is_under_way() -> bool:
        children.look(process.pid)
        return lines(tmp_path / "run") >= 3

    until(is_under_way, process)
    # A worker is never taken for an agent.
    assert len(children.agents) == 2
    assert children.starting  # it was seen before it had a title
    assert children.starting <= children.workers
    assert not children.starting & children.agents
    for name in ("raylet", "gcs_server", "ray::RuntimeEnvAgent"):
        daemon(process, name).send_signal(signal.SIGHUP)
    more = lines(tmp_path / "run") + 10
    until(partial(_has, tmp_path / "run", more), process)
    terminal.close()
    assert process.wait(DEADLINE) == 0
    assert b"update" in terminal.shown
    assert b"restarted" not in terminal.shown
    made = lines(tmp_path / "run")
    assert (tmp_path / f"run/checkpoints/update-{made:08}.safetensors").is_file()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_run_whose_ray_loses_an_agent_goes_on_or_is_resumed(tmp_path: Path) -> None:
    """The raylet signs off then. If it is quicker than the learner, Ray ends the learner."""
    process = start(tmp_path, "--stop-episodes", "1000000", "--checkpoint-every", "1")
    daemon(process, "ray::RuntimeEnvAgent").kill()
    before = lines(tmp_path / "run")
    until(lambda: process.poll() is not None or lines(tmp_path / "run") >= before + 10)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode in (0, 1), said
    made = metrics(tmp_path / "run")
    assert len(made) >= before
    assert load_checkpoint(max((tmp_path / "run/checkpoints").glob("update-*"))).state.progress
    stop = len(made) + 3
    resume = ("train", "--resume", "run", "--stop-episodes", str(stop))
    assert distributed_pg(*resume, cwd=tmp_path).returncode == 0
    resumed = [m["weights_checksum"] for m in metrics(tmp_path / "run")]
    assert resumed == learner_runs.checksums(replace(learner_runs.QUICK, stop_episodes=stop))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without workers and a node with one; each test may harm the head in its own way."""
    with ray_cluster(head_cpus=0, node_cpus=1) as cluster:
        yield cluster


def head_process(cluster: Any, name: str) -> psutil.Process:
    return psutil.Process(cluster.head_node.all_processes[name][0].process.pid)


def test_a_run_saves_when_the_head_of_its_cluster_is_silent_or_gone(
    tmp_path: Path, cluster: Cluster
) -> None:
    silent = tmp_path / "silent"
    silent.mkdir()
    process = start(
        silent,
        *("--address", cluster.address, "--checkpoint-every", "1000000"),
        RAY_gcs_rpc_server_reconnect_timeout_s="12",
    )
    gcs = head_process(cluster, "gcs_server")
    gcs.suspend()
    said, _ = process.communicate(timeout=DEADLINE)
    gcs.resume()
    check_saved(silent, process.returncode, said, "the head of the Ray cluster has been silent")

    stopped = tmp_path / "stopped"
    stopped.mkdir()
    process = start(stopped, "--address", cluster.address, "--checkpoint-every", "1000000")
    gcs.suspend()
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=DEADLINE)
    gcs.resume()
    check_saved(stopped, process.returncode, said, "the head of the Ray cluster does not answer")

    gone = tmp_path / "gone"
    gone.mkdir()
    process = start(gone, "--address", cluster.address, "--checkpoint-every", "1000000")
    gcs.kill()
    said, _ = process.communicate(timeout=DEADLINE)
    check_saved(
        gone, process.returncode, said, "Ray's process gcs_server on this machine has ended"
    )


def check_nothing_of_rays(said: str) -> None:
    """Nor what its processes say: their state, their stack, in colour."""
    for own in ("(raylet", "(autoscaler", "(gcs_server", "state-dump", "\x1b", "marked dead"):
        assert own not in said, said


def check_saved(folder: Path, code: int, said: str, reason: str) -> None:
    assert code == 1, said
    check_nothing_of_rays(said)
    assert said.splitlines()[-1].startswith(f"distributed-pg: error: {reason}"), said
    made = lines(folder / "run")
    assert (folder / f"run/checkpoints/update-{made:08}.safetensors").is_file()


def test_a_cluster_that_answers_late_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "40")
    now = [0.0]
    monkeypatch.setattr(health, "cluster_cpus", lambda: 7)
    monkeypatch.setattr(health, "ASK_SECONDS", 1e9)  # the thread asks nothing more
    watch = ClusterWatch()
    watch._clock = PolledClock(lambda: now[0])
    watch._clock.judge_by(4.0)
    watch._answered_at = 0.0
    saved: list[float] = []
    watch.when_silent = lambda: saved.append(now[0])

    def pass_seconds(seconds: float, step: float) -> None:
        end = now[0] + seconds
        while now[0] < end:
            now[0] += step
            watch.check()

    pass_seconds(9.0, 0.5)
    assert not saved
    pass_seconds(3.0, 0.5)
    assert saved == [10.5]
    pass_seconds(5000.0, 1000.0)  # the process was stopped; each look counts a second
    watch._answered.set()
    pass_seconds(9.0, 0.5)
    assert saved == [10.5]
    with pytest.raises(RayLostError, match=r"has been silent for 24 s|has been silent for 25 s"):
        pass_seconds(20.0, 0.5)
    assert len(saved) == 2
    assert watch.cpus == 7
    watch.end()


def test_a_ray_that_does_not_start_in_time_gets_another_try(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[str] = []

    def init(address: str, **_: object) -> None:
        tries.append(address)
        if tries.count("local") < fail:
            raise Exception("The current node timed out during startup")  # as Ray does

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: tries.append("shut down"))
    fail = 2
    session._start(1)
    assert tries == ["local", "shut down", "local"]
    assert caplog.messages == [
        "Ray did not start: The current node timed out during startup; trying once more"
    ]
    fail = 9
    with pytest.raises(RunError, match="Ray did not start: The current node timed out"):
        session._start(1)
    assert tries[3:] == ["local", "shut down", "local"]


def test_a_thread_of_its_own_cannot_use_ray_as_well() -> None:
    with session._OURS:
        result: list[BaseException] = []

        def other() -> None:
            try:
                with session.ray_session(None, 1):
                    pass
            except UsageError as error:
                result.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another thread of this process is already training or evaluating" in str(result[0])


START = """
import shutil, subprocess, sys, time
from distributed_pg.runtime import health

health.START_GRACE_SECONDS = 0.5
gcs = subprocess.Popen([sys.argv[1], "100"])
with health.StartWatch():
    time.sleep(1.0)
    gcs.kill()
    time.sleep(float(sys.argv[2]))
print("Ray has noticed by itself")
"""


def test_a_start_that_has_lost_its_gcs_ends_with_a_line_of_ours(tmp_path: Path) -> None:
    """Ray itself would end the process without one, a minute later."""
    gcs = tmp_path / "gcs_server"
    shutil.copy(shutil.which("sleep") or "", gcs)
    ended = run(sys.executable, "-c", START, gcs, "100", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    said = "distributed-pg: error: Ray did not start: its process gcs_server has ended"
    assert ended.stderr.split("\n") == ["", said, ""]
    raised = run(sys.executable, "-c", START, gcs, "0.1", cwd=tmp_path)
    assert (raised.returncode, raised.stderr) == (0, "")
