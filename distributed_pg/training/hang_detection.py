"""When a silent worker counts as hung, and a task as late."""

import statistics
from collections import deque

HUNG_TASKS = 20.0
"""Minimum silence, in median task times, before a worker is considered hung."""
_RECENT = 100


class HangDetection:
    """Time limits that follow from how long the last 100 tasks took.

    Args:
        hang_seconds: a worker that is silent for this long is hung, unless tasks take so long that
            it is within :data:`HUNG_TASKS` of them.
        backup_after: a task is late if it takes this many times the median.
    """

    def __init__(self, hang_seconds: float, backup_after: float) -> None:
        self._hang_seconds = hang_seconds
        self.backup_after = backup_after
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self.median_seconds = 0.0
        """Median time of the last tasks; 0 before the first has finished."""

    def finished(self, seconds: float) -> None:
        """Take the time of a task that has finished."""
        self._recent.append(seconds)
        self.median_seconds = statistics.median(self._recent)

    @property
    def hung_after(self) -> float:
        """Seconds of silence after which a worker is hung."""
        return max(self._hang_seconds, HUNG_TASKS * self.median_seconds)

    @property
    def late_after(self) -> float:
        """Seconds after which a task is late; 0 before the first has finished."""
        return self.backup_after * self.median_seconds
