"""How much memory a process has needed."""

import re
import sys
from pathlib import Path

import psutil


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
