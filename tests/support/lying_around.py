"""Hostile surroundings of a command, such as modules that shadow libraries, and a cluster."""

import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import psutil
from command import DEADLINE
from ray_cluster import NO_IDLE_WORKERS

import distributed_pg

PACKAGE = Path(distributed_pg.__file__).parent
INSTALLED = Path(sys.executable).with_name("distributed-pg")


class Traps:
    """A folder with a module for every name that Python or an installed library could import.

    Each records its name and fails. The package is among them, and so is ``sitecustomize``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "traps"
        self._log = folder / "sprung"
        self.folder.mkdir()
        names = {*sys.stdlib_module_names, *packages_distributions(), "distributed_pg"}
        for name in filter(str.isidentifier, names | {"sitecustomize", "usercustomize"}):
            write = f"open({str(self._log)!r}, 'a').write('{name} ')"
            (self.folder / f"{name}.py").write_text(f"{write}\nraise ImportError('a trap: {name}')")

    @property
    def sprung(self) -> str:
        """Names of the modules that were imported."""
        return self._log.read_text() if self._log.exists() else ""


def copy_package(folder: Path) -> Path:
    """Copy the package to ``folder``, with different code but the same behaviour."""
    folder.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    copy = shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=ignored)
    with (copy / "envs/pong.py").open("a") as file:
        file.write("# another one\n")
    return copy


@contextlib.contextmanager
def ray_head(cwd: Path, **environment: str) -> Iterator[tuple[str, Path]]:
    """Start a one-node cluster in ``cwd``; yield its address and the folder with its sockets."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ray-"))  # pytest's paths are too long for sockets
        stack.callback(shutil.rmtree, folder)
        ports = free_ports(2)
        command = [str(INSTALLED.with_name("ray")), "start", "--head", "--block", "--num-cpus=1"]
        command += [f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}"]
        command += ["--include-dashboard=false", f"--temp-dir={folder / 'ray'}"]
        log = stack.enter_context((folder / "log").open("w"))
        variables = os.environ | NO_IDLE_WORKERS | environment
        process = psutil.Popen(command, cwd=cwd, env=variables, stdout=log, stderr=log)
        stack.callback(end, process)
        deadline = time.monotonic() + DEADLINE
        while "Ray runtime started" not in (output := (folder / "log").read_text()):
            assert process.poll() is None, output
            assert time.monotonic() < deadline, output
            time.sleep(0.1)
        yield f"127.0.0.1:{ports[0]}", folder / "ray"


def free_ports(count: int) -> list[int]:
    """Unused ports outside the range that the system assigns automatically."""
    ports: set[int] = set()
    while len(ports) < count:
        port = 20_000 + secrets.randbelow(10_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return list(ports)


def end(process: psutil.Process) -> None:
    """Kill a head node and all its descendants."""
    processes = [process, *process.children(recursive=True)]
    for victim in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive
