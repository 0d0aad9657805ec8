"""What the bits of a run depend on besides its config."""

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
    """Which code a process runs."""

    host: str
    folder: str
    """Where the package is."""
    digest: str
    """Of the package's Python files."""

    def __str__(self) -> str:
        return f"{self.folder} on {self.host} (digest {self.digest})"


@cache
def own_files() -> dict[str, bytes]:
    """The Python files of this package as they are when this process looks first."""
    return python_files(PACKAGE)


@cache
def own_code() -> Code:
    """Which code this process runs."""
    return Code(platform.node(), str(PACKAGE), code_digest(own_files()))


def python_files(package: Path) -> dict[str, bytes]:
    """Paths in the package and contents of its Python files, sorted by path."""
    found = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    return {name: found[name].read_bytes() for name in sorted(found)}


def code_digest(files: Mapping[str, bytes]) -> str:
    """A digest of the names and contents of a package's files."""
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def library_versions() -> dict[str, str]:
    """Versions of Python, the C library and the packages that play and learn."""
    # A job may bring the package along, beside another that is installed, or none.
    versions = {"distributed-pg": __version__}
    versions |= {name: version(name) for name in _LIBRARIES}
    versions["python"] = platform.python_version()
    versions["libc"] = " ".join(platform.libc_ver()).strip() or platform.system()
    # x86-64 is held to SSE (see determinism.py), so its generation does not matter.
    versions["instruction set"] = "x86-64 SSE" if on_x86() else platform.machine()
    return versions


def changed_versions(before: dict[str, str]) -> list[str]:
    """What differs between ``before`` and :func:`library_versions`, a line each."""
    now = library_versions()
    return [
        f"{name} was {before.get(name)} and is {now.get(name)} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory() -> int:
    """The most memory this process ever had resident, bytes; shared memory it touched included."""
    if sys.platform == "linux":
        # Not ru_maxrss, which begins with that of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
