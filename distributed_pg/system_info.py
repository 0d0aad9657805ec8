"""Versions, code and hardware: what a run's bits depend on besides its config."""

import hashlib
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import psutil

from distributed_pg import __version__
from distributed_pg.determinism import on_x86

_LIBRARIES = ("numpy", "scipy", "ale-py", "gymnasium", "ray")
PACKAGE = Path(__file__).resolve().parent
"""The folder of this package."""


@dataclass(frozen=True, slots=True)
class Code:
    """Identifies the code that a process runs."""

    host: str
    folder: str
    """Folder of the package."""
    digest: str
    """Digest of the package's Python files."""

    def __str__(self) -> str:
        return f"{self.folder} on {self.host} (digest {self.digest})"


@cache
def own_files() -> dict[str, bytes]:
    """The Python files of this package, as they were at the first call in this process."""
    return python_files(PACKAGE)


@cache
def own_code() -> Code:
    """The code that this process runs."""
    return Code(platform.node(), str(PACKAGE), code_digest(own_files()))


def python_files(package: Path) -> dict[str, bytes]:
    """Contents of a package's Python files by path within the package, sorted by path."""
    found = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    return {name: found[name].read_bytes() for name in sorted(found)}


def code_digest(files: Mapping[str, bytes]) -> str:
    """A digest of the names and contents of a package's files."""
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


@cache  # every checkpoint has them, and the C library's is found by searching Python's executable
def library_versions() -> dict[str, str]:
    """Versions of Python, the C library and the packages that affect a run's bits."""
    # Not from metadata: a job may ship its own copy of this package.
    versions = {"distributed-pg": __version__}
    versions |= {name: version(name) for name in _LIBRARIES}
    versions["python"] = platform.python_version()
    versions["libc"] = " ".join(platform.libc_ver()).strip() or platform.system()
    # x86-64 is restricted to SSE (see determinism.py), so the CPU generation does not matter.
    versions["instruction set"] = "x86-64 SSE" if on_x86() else platform.machine()
    return versions


def changed_versions(before: dict[str, str]) -> list[str]:
    """Describe how :func:`library_versions` differs from ``before``, one line per difference."""
    now = library_versions()
    return [
        f"{name} was {before.get(name)} and is {now.get(name)} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def cpu_model() -> str:
    """The processor's name as reported by the system."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory() -> int:
    """Peak resident memory of this process in bytes, including shared memory it touched."""
    if sys.platform == "linux":
        # Not ru_maxrss, which starts at the value of the parent process.
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
