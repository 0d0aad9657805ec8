"""How much memory a process has needed."""

import resource
import sys

_UNIT = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB


def peak_memory() -> int:
    """The most memory this process ever had resident, bytes; shared memory it touched included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
