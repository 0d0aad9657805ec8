"""Which episode is played with which weights, and in which order gradients are summed.

Update u sums the episodes u*B to u*B + B-1 in that order. They are played with weights version
max(0, u - policy_lag), where version v is the weights after v updates. Nothing else decides what a
run computes: not the number of workers, their speed, or what is lost on the way.
"""

import heapq
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class EpisodeTask:
    """What a worker is asked to play."""

    episode: int
    """Index of the episode in the run, from 0."""
    version: int
    """Version of the weights to play it with: the number of updates they have seen."""


class Schedule:
    """The state of every task: free, given out, finished or summed.

    Args:
        batch_size: episodes in an update, B.
        policy_lag: how many updates old the weights of an episode are (0: none).
        updates_done: updates the run has made already.
        last_update: tasks beyond this many updates are never given; None: no end.
    """

    def __init__(
        self,
        batch_size: int,
        policy_lag: int,
        updates_done: int = 0,
        last_update: int | None = None,
    ) -> None:
        self._batch_size = batch_size
        self._policy_lag = policy_lag
        self._last_update = last_update
        self._update = updates_done
        self._summed = self._unseen = updates_done * batch_size
        self._free: list[int] = []  # episodes that were lost, a heap
        self._given: dict[int, int] = {}  # episode -> workers that play it now
        self._finished: set[int] = set()

    @property
    def update(self) -> int:
        """Updates made; also the version of the newest weights."""
        return self._update

    @property
    def oldest_version(self) -> int:
        """The oldest weights that a task can still ask for."""
        return max(0, self._update - self._policy_lag)

    @property
    def free_tasks(self) -> int:
        """How many tasks could be given out now."""
        return len(self._free) + max(0, self._open_end() - self._unseen)

    def next_task(self) -> EpisodeTask | None:
        """Give out the first free task; None while all that may be played are given out."""
        if self._free:
            episode = heapq.heappop(self._free)
        elif self._unseen < self._open_end():
            episode = self._unseen
            self._unseen += 1
        else:
            return None
        return self._give(episode)

    def backup_task(self, episode: int) -> EpisodeTask | None:
        """A second task for an episode that one worker plays now; None if it is not so."""
        return self._give(episode) if self._given.get(episode) == 1 else None

    def finish(self, episode: int) -> bool:
        """An episode came back. False if it is not needed: a duplicate, or already summed."""
        if episode in self._given:
            del self._given[episode]
        elif episode in self._free:  # given up as lost, and here it is
            self._free.remove(episode)
            heapq.heapify(self._free)
        else:
            return False
        self._finished.add(episode)
        return True

    def lose(self, episode: int) -> bool:
        """A worker that played the episode is gone.

        Returns:
            Whether the episode has to be played again: nobody else plays it or has played it.
        """
        if episode not in self._given:
            return False
        self._given[episode] -= 1
        if self._given[episode] > 0:
            return False
        del self._given[episode]
        heapq.heappush(self._free, episode)
        return True

    def next_to_sum(self, most: int) -> range:
        """The episodes whose gradients can be added now, in this order; ``most`` of them at most.

        Empty if the first of them has not come back yet, or if the batch is complete: the sum must
        be applied before the next batch begins.
        """
        end = start = self._summed
        limit = min(start + most, (self._update + 1) * self._batch_size)
        while end < limit and end in self._finished:
            end += 1
        return range(start, end)

    def mark_summed(self, episode: int) -> None:
        """The gradient of the first of :meth:`next_to_sum` is in the sum."""
        if episode not in self.next_to_sum(1):
            raise ValueError(f"episode {episode} is not the next to sum")
        self._finished.remove(episode)
        self._summed += 1

    @property
    def batch_complete(self) -> bool:
        """Whether the gradients of all episodes of this update are summed."""
        return self._summed == (self._update + 1) * self._batch_size

    def advance(self) -> None:
        """The update is made: its weights may be played from now on."""
        if not self.batch_complete:
            raise ValueError(f"update {self._update} lacks episodes from {self._summed} on")
        self._update += 1

    def _give(self, episode: int) -> EpisodeTask:
        self._given[episode] = self._given.get(episode, 0) + 1
        return EpisodeTask(episode, max(0, episode // self._batch_size - self._policy_lag))

    def _open_end(self) -> int:
        """First episode that may not be played yet."""
        end = self._update + self._policy_lag + 1
        if self._last_update is not None:
            end = min(end, self._last_update)
        return end * self._batch_size
