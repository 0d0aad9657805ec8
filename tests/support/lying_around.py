"""What may lie around where a command is started, and a cluster."""

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

import distributed_pg

PACKAGE = Path(distributed_pg.__file__).parent
INSTALLED = Path(sys.executable).with_name("distributed-pg")


class Traps:
    """A folder with a module for every name that Python or a library of ours could import.

    Each writes down its name and fails. The package is one of them, and so is ``sitecustomize``.
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
        """The modules that were run."""
        return self._log.read_text() if self._log.exists() else ""


def copy_package(folder: Path) -> Path:
    """A copy of the package in ``folder`` with other code in it, which does the same."""
    folder.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    copy = shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=ignored)
    with (copy / "envs/pong.py").open("a") as file:
        file.write("# another one\n")
    return copy


@contextlib.contextmanager
def ray_head(cwd: Path, **environment: str) -> Iterator[tuple[str, Path]]:
    """A cluster of one node, started in ``cwd``: its address, and the folder with its sockets."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets cannot have pytest's long paths
        stack.callback(shutil.rmtree, folder)
        ports = free_ports(2)
        command = [str(INSTALLED.with_name("ray")), "start", "--head", "--block", "--num-cpus=1"]
        command += [f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}"]
        command += ["--include-dashboard=false", f"--temp-dir={folder / 'ray'}"]
        log = stack.enter_context((folder / "log").open("w"))
        process = psutil.Popen(
            command, cwd=cwd, env=os.environ | environment, stdout=log, stderr=log
        )
        stack.callback(end, process)
        deadline = time.monotonic() + DEADLINE
        while "Ray runtime started" not in (said := (folder / "log").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        yield f"127.0.0.1:{ports[0]}", folder / "ray"


def free_ports(count: int) -> list[int]:
    """Ports nobody listens at, of those that the system gives to nobody by itself."""
    ports: set[int] = set()
    while len(ports) < count:
        port = 20_000 + secrets.randbelow(10_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return list(ports)


def end(process: psutil.Process) -> None:
    """End a head node and all that it started."""
    processes = [process, *process.children(recursive=True)]
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive
