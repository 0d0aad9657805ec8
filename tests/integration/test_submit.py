"""Jobs submitted to a real Ray cluster through its dashboard, followed, stopped and fetched."""

import contextlib
import http.server
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from command import COMMAND, DEADLINE
from learner_runs import checksums
from lying_around import end, free_ports
from ray_cluster import NO_IDLE_WORKERS

from distributed_pg.config import TrainConfig
from distributed_pg.determinism import kernel_environment
from distributed_pg.storage.checkpoint import load_checkpoint, weights_checksum
from distributed_pg.storage.run_dir import RunDir

ENDLESS = ("--batch-size=1", "--frame-limit=400", "--hidden-units=50", "--num-workers=1")
BROKEN = 'raise ImportError("this is not the package that was submitted")\n'
SEVERAL = """
import contextlib, io, json, sys
from distributed_pg.cli.main import main
for line in sys.argv[1:]:
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main(["submit", *line.split()])
    print(json.dumps([code, output.getvalue(), errors.getvalue()]))
"""
"""Runs several commands in one process, as importing Ray takes longer than most of them."""


@dataclass(frozen=True)
class Head:
    """The head node of a cluster that this process does not join."""

    url: str
    token: str
    home: Path
    process: psutil.Process

    def start(self, *arguments: str | Path, url: str | None = None) -> subprocess.Popen[str]:
        """``distributed-pg submit``, as a terminal would start it."""
        return subprocess.Popen(
            [*COMMAND, "submit", "--dashboard", url or self.url, *map(str, arguments)],
            env=environment(RAY_AUTH_TOKEN=self.token),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path, url: str | None = None) -> tuple[int, str, str]:
        """The command until it ends: its exit code, output and errors."""
        process = self.start(*arguments, url=url)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors

    def several(self, *lines: str) -> list[tuple[int, str, str]]:
        """Commands in one process, one after the other; what is not said is as in :meth:`run`."""
        done = subprocess.run(
            [sys.executable, "-c", SEVERAL, *lines],
            env=environment(RAY_AUTH_TOKEN=self.token),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        said = map(json.loads, done.stdout.splitlines())
        return [(code, output, errors) for code, output, errors in said]

    def post(self, job: str, entrypoint: str, metadata: dict[str, str]) -> None:
        """Submit a job without the command."""
        body = {"submission_id": job, "entrypoint": entrypoint, "metadata": metadata}
        headers = {"Authorization": f"Bearer {self.token}"}
        requests.post(
            f"{self.url}/api/jobs/", json=body, headers=headers, timeout=60
        ).raise_for_status()

    def find(self, text: str) -> psutil.Process:
        """The one process of the cluster's jobs with ``text`` in its command line."""
        (found,) = (p for p in self.process.children(recursive=True) if text in command_line(p))
        return found


class Tunnel:
    """Passes connections on to the dashboard, until it is cut or ``limit`` bytes came back."""

    def __init__(self, url: str, limit: float = float("inf")) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._to, self._left = (host, int(port)), limit
        self._server = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._server]
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and accept none any more."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, far = self._server.accept()[0], socket.create_connection(self._to)
                self._sockets += [near, far]
                threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                for one in select.select([near, far], [], [])[0]:
                    data = one.recv(2**16)
                    (near if one is far else far).sendall(data)
                    self._left -= len(data) if one is far else 0
                    if self._left < 0:
                        self.cut()
                    if not data:
                        near.close()
                        far.close()


def environment(**more: str) -> dict[str, str]:
    """This process's environment, but for what it says about Ray."""
    return {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | more


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What the process prints up to the line with ``pattern``."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if re.search(pattern, line):
            return text
    raise AssertionError(f"it ended without {pattern}:\n{text}")


def checksum(run: Path) -> str:
    return weights_checksum(load_checkpoint(RunDir.open(run).newest_checkpoint()).state.policy)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Two CPUs, a token and a home of its own; what uses the package installed there fails."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets cannot have pytest's long paths
        stack.callback(shutil.rmtree, folder)
        (folder / "broken/distributed_pg").mkdir(parents=True)
        (folder / "broken/distributed_pg/__init__.py").write_text(BROKEN)
        ports = free_ports(4)
        flags = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += [f"--{flag}={port}" for flag, port in zip(flags, ports, strict=True)]
        token = secrets.token_hex(16)
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            [*command, "--num-cpus=2", f"--temp-dir={folder / 'ray'}"],
            env=environment(
                HOME=str(folder),
                PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                PYTHONPATH=str(folder / "broken"),
                RAY_AUTH_MODE="token",
                RAY_AUTH_TOKEN=token,
                RAY_USAGE_STATS_ENABLED="0",
                **NO_IDLE_WORKERS,
            ),
            cwd=folder / "broken",
            stdout=log,
            stderr=log,
        )
        stack.callback(end, psutil.Process(process.pid))
        started = folder / "log"
        deadline = time.monotonic() + DEADLINE
        while "Ray runtime started" not in started.read_text():
            assert process.poll() is None, started.read_text()
            assert time.monotonic() < deadline, started.read_text()
            time.sleep(0.1)
        url = f"http://127.0.0.1:{ports[1]}"
        yield Head(url, token, folder, psutil.Process(process.pid))


def test_a_job_has_the_bits_of_a_run_without_ray_and_is_fetched(head: Head, tmp_path: Path) -> None:
    config = TrainConfig(
        batch_size=2,
        actions=("UP", "DOWN", "NOOP"),
        frame_limit=400,
        hidden_units=8,
        stop_episodes=8,
    )
    flags = ["--actions", "UP", "DOWN", "NOOP", "--batch-size=2", "--frame-limit=400"]
    flags += ["--hidden-units=8", "--num-workers=1"]
    out = tmp_path / "new/fetched"
    code, output, errors = head.run("--out", out, *flags, "--stop-episodes=8", "--tensorboard")
    assert (code, errors) == (0, ""), output + errors
    assert checksum(out) == checksums(config)[-1]
    assert f"Checkpoint: {out}/checkpoints/update-00000004.safetensors" in output
    assert f"-m distributed_pg evaluate {out}\n" in output
    job = re.findall(r"Submitting job (\S+)", output)[0]
    run = head.home / "distributed_pg_runs" / job
    files = {path.relative_to(run): path.read_bytes() for path in run.rglob("*.*")}
    assert [path.parent.name for path in sorted(files)].count("tensorboard") == 1
    assert len(files) == 5
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")} == files
    assert [path.name for path in out.parent.iterdir()] == ["fetched"]


def test_a_job_outlives_its_follower_and_saves_when_it_is_stopped(
    head: Head, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = head.start("--out", out, *ENDLESS)
    job = read_until(first, "Submitting job").split()[-1]
    read_until(first, "update 1 ")
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=60) == 130
    assert first.stderr is not None
    told = first.stderr.read()
    again = f"python -m distributed_pg submit --dashboard {head.url}"
    assert told.splitlines()[-3:] == [
        f"Job {job} is not affected.",
        f"Attach: {again} --attach {job} --out {out}",
        f"Stop:   {again} --stop {job}",
    ]

    tunnel = Tunnel(head.url)
    second = head.start("--attach", job, "--out", out, url=tunnel.url)
    third = head.start("--attach", job, "--out", out)
    read_until(second, "update 1 ")
    tunnel.cut()
    _, told = second.communicate(timeout=30)
    assert second.returncode == 1
    assert told.startswith(f"distributed-pg: error: connection lost: {tunnel.url}: ")
    assert f"--attach {job} --out {out}\n" in told

    read_until(third, "update 1 ")
    worker = head.find("RolloutWorker").environ()
    assert kernel_environment().items() <= worker.items()
    assert "py_modules_files" in worker["PYTHONPATH"]
    # By default Ray kills a job 3 s after it was asked to stop, which may be too soon to save.
    assert head.find("JobSupervisor").environ()["RAY_JOB_STOP_WAIT_TIME_S"] == "300"
    asked = f"Job {job} is asked to save and stop.\n"
    assert head.run("--stop", job) == (0, asked, "")
    output, told = third.communicate(timeout=60)
    assert (third.returncode, told) == (0, "")
    assert f"Weights checksum: {checksum(out)}\nCheckpoint: {head.home}" in output  # the job's
    assert f"Weights checksum: {checksum(out)}\nCheckpoint: {out}" in output
    last = int(re.findall(r"Stopped on request after \d+ episodes, (\d+) updates", output)[0])
    assert load_checkpoint(RunDir.open(out).newest_checkpoint()).state.progress.update == last
    assert head.run("--stop", job) == (0, f"Job {job} has ended already: STOPPED\n", "")

    tunnel = Tunnel(head.url, limit=1e6)  # less than a checkpoint
    half = tmp_path / "half/out"
    code, output, told = head.run("--attach", job, "--out", half, url=tunnel.url)
    assert code == 1
    assert f"files to {half}\n" in output
    assert told.startswith("distributed-pg: error: the run is not fetched: nobody answers")
    assert f"--attach {job} --out {half}\n" in told
    assert list(half.parent.iterdir()) == []


@pytest.mark.exhaustive
@pytest.mark.slow
def test_what_a_failed_job_saved_is_fetched(head: Head, tmp_path: Path) -> None:
    process = head.start("--out", tmp_path / "out", *ENDLESS)
    job = read_until(process, "Submitting job").split()[-1]
    read_until(process, "update 1 ")
    head.find(f"distributed_pg_runs/{job}").kill()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"distributed-pg: error: job {job} failed (exit code -9); its last output: " in errors
    assert f"Weights checksum: {checksum(tmp_path / 'out')}" in output


def failed_with(reason: str) -> tuple[int, str, str]:
    return 1, "", f"distributed-pg: error: {reason}\n"


def test_jobs_without_a_run_to_fetch(head: Head, tmp_path: Path) -> None:
    head.post("early", "python3 -c 'import nothing'", {"run_dir": ""})
    head.post("foreign", "true", {})
    lines = "--attach early --out {}", "--attach foreign --out {}", "--stop foreign"
    url, out = f"--dashboard {head.url}", tmp_path / "out"
    (code, output, errors), *foreign = head.several(*(f"{url} {s.format(out)}" for s in lines))
    assert "Job early has no run: it ended before it began\n" in output
    said = "job early failed (exit code 1); its last output: ModuleNotFoundError: No module named"
    assert (code, errors) == (1, f"distributed-pg: error: {said} 'nothing'\n")
    not_ours = failed_with("job foreign was not submitted by distributed-pg submit")
    assert foreign == [not_ours, not_ours]
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_dashboard_or_job_is_one_line_within_30_seconds(head: Head) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.socket() as nobody,
        http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as web,
    ):
        nobody.bind(("127.0.0.1", 0))  # but it does not listen
        threading.Thread(target=web.serve_forever, daemon=True).start()
        ports = silent.getsockname()[1], nobody.getsockname()[1], web.server_address[1]
        no_answer, refused, other = (f"http://127.0.0.1:{port}" for port in ports)
        expected = {
            f"--dashboard {no_answer}": f"nobody answers at {no_answer} (",
            f"--dashboard {refused}": f"nobody answers at {refused}; ray dashboard ",
            f"--dashboard {other}": f"{other} is not a usable Ray dashboard: ",
            f"--dashboard {head.url} --attach nothing": f"there is no job nothing at {head.url}\n",
            f"--dashboard {head.url} --stop nothing": f"there is no job nothing at {head.url}\n",
        }
        begin = time.monotonic()
        results = head.several(*expected)
        assert time.monotonic() - begin < 30
        web.shutdown()
    for line, (code, output, errors) in zip(expected, results, strict=True):
        assert (code, output) == (1, ""), line
        assert errors.startswith(f"distributed-pg: error: {expected[line]}"), line
        assert errors.count("\n") == 1, line


@contextlib.contextmanager
def recording_proxy() -> Iterator[tuple[str, list[bytes]]]:
    """The URL of a proxy that passes nothing on, and the first line of each request to it."""
    seen: list[bytes] = []

    class Recorder(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            seen.append(self.rfile.readline())
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Recorder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


@pytest.fixture(scope="module")
def elsewhere(head: Head) -> str:
    """A job whose run is not on the cluster."""
    head.post("elsewhere", "echo trained", {"run_dir": "s3://bucket/run"})
    return "elsewhere"


@pytest.mark.parametrize(("host", "no_proxy"), [("127.0.0.1", None), ("LocalHost", "example.com")])
def test_no_proxy_sees_what_goes_to_a_loopback_address(
    head: Head,
    elsewhere: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    host: str,
    no_proxy: str | None,
) -> None:
    """``tests/unit/runtime/test_jobs.py`` has more names of a loopback address."""
    other, here = "http://dashboard.invalid:8265", f"http://{host}:{head.url.rpartition(':')[2]}"
    with recording_proxy() as (proxy, seen):
        for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
            monkeypatch.setenv(name, proxy)
            monkeypatch.setenv(name.upper(), proxy)
        if no_proxy is not None:
            monkeypatch.setenv("no_proxy", no_proxy)
        through_it, past_it = head.several(
            f"--dashboard {other} --stop {elsewhere}",
            # The log comes by a websocket, of another library.
            f"--dashboard {here} --attach {elsewhere} --out {tmp_path / 'out'}",
        )
    assert through_it[0] == 1
    assert seen
    assert all(line.startswith(f"GET {other}/".encode()) for line in seen)
    code, output, errors = past_it
    assert (code, errors) == (0, "")
    assert "trained\n" in output
    assert output.endswith("\nThe run is in s3://bucket/run\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("token", "message"), [("", "Missing authentication token"), ("0" * 32, "Invalid authenti")]
)
def test_a_dashboard_that_wants_another_token(
    head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str, message: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where no token is
    stranger = Head(head.url, token, head.home, head.process)
    code, output, errors = stranger.run("--stop", "any")
    assert (code, output) == (1, "")
    assert message in errors
    assert "the cluster's token belongs in" in errors
    assert errors.count("\n") == 1
