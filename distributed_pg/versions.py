"""What the bits of a run depend on besides its config."""

import platform
from importlib.metadata import version
from pathlib import Path

from distributed_pg import __version__
from distributed_pg.kernels import on_x86

_LIBRARIES = ("numpy", "scipy", "ale-py", "gymnasium", "ray")


def library_versions() -> dict[str, str]:
    """Versions of Python, the C library and the packages that play and learn."""
    # A job may bring the package along, beside another that is installed, or none.
    versions = {"distributed-pg": __version__}
    versions |= {name: version(name) for name in _LIBRARIES}
    versions["python"] = platform.python_version()
    versions["libc"] = " ".join(platform.libc_ver()).strip() or platform.system()
    # x86-64 is held to SSE (see kernels.py), so its generation does not matter.
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
        with Path("/proc/cpuinfo").open() as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()
