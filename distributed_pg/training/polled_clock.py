"""A clock that stands still while its own process stalls."""

from collections.abc import Callable

MOST_SECONDS = 5.0
"""Maximum seconds the clock advances between two polls."""


class PolledClock:
    """Counts the seconds during which its process was polling.

    A process that stalls (Ctrl-Z and fg, a closed lid, a blocked disk) receives no messages, so it
    must not conclude that others were silent. Therefore this clock advances only a little between
    two polls, however long that took.

    Args:
        clock: returns seconds, like :func:`time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._polled_at = clock()
        self._seconds = 0.0
        self._most = MOST_SECONDS

    def __call__(self) -> float:
        """The current time in seconds."""
        return self._seconds + min(self._clock() - self._polled_at, self._most)

    def judge_by(self, limit: float) -> None:
        """Set a time limit that the clock is compared with; a stall counts for a quarter of it."""
        self._most = min(MOST_SECONDS, limit / 4)

    def poll(self) -> None:
        """Record that messages have just been received."""
        self._seconds = self()
        self._polled_at = self._clock()
