"""A clock that a stall of its own process does not move."""

from collections.abc import Callable

MOST_SECONDS = 5.0
"""How far the clock moves between two polls, at most."""


class PolledClock:
    """Seconds in which somebody polled.

    Only who listens can say that others were silent. A learner that was stopped has not listened:
    Ctrl-Z and fg, a closed lid, a disk that blocked. So this clock moves from one poll to the next
    by little, however long that took.

    Args:
        clock: seconds, as :func:`time.monotonic` gives them.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._polled_at = clock()
        self._seconds = 0.0
        self._most = MOST_SECONDS

    def __call__(self) -> float:
        """The seconds now."""
        return self._seconds + min(self._clock() - self._polled_at, self._most)

    def judge_by(self, limit: float) -> None:
        """Someone silent for ``limit`` seconds will be judged: a stall counts a quarter of it."""
        self._most = min(MOST_SECONDS, limit / 4)

    def poll(self) -> None:
        """Others have been listened to just now."""
        self._seconds = self()
        self._polled_at = self._clock()
