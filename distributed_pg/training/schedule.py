"""Decides which weights each episode is played with, and the order in which gradients are summed.

Update u sums episodes u*B to u*B + B-1 in that order. They are played with weights version
max(0, u - policy_lag), where version v is the weights after v updates. If a task has several
episodes, its worker sums their gradients in order, and the update sums those of its tasks. Nothing
else affects the result of a run: not the number of workers, their speed, or failures on the way.
"""

import heapq
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class EpisodeTask:
    """An episode, or several consecutive ones, for a worker to play."""

    episode: int
    """Index of the first episode in the run, from 0. It identifies the task."""
    version: int
    """Version of the weights to play with: the number of updates behind them."""
    episodes: int = 1
    """Number of episodes."""

    def __str__(self) -> str:
        """The name in messages."""
        if self.episodes == 1:
            return f"episode {self.episode}"
        return f"episode group {self.episode}-{self.episode + self.episodes - 1}"


class Schedule:
    """Tracks the state of every task: free, submitted, finished or summed.

    Methods take and return tasks by their first episode.

    Args:
        batch_size: episodes per update, B.
        policy_lag: age of an episode's weights in updates.
        updates_done: updates the run has already made.
        last_update: number of updates after which there are no more tasks; None: no limit.
        episodes_per_task: episodes of a task, a divisor of B.
    """

    def __init__(
        self,
        batch_size: int,
        policy_lag: int,
        updates_done: int = 0,
        last_update: int | None = None,
        episodes_per_task: int = 1,
    ) -> None:
        self._batch_size = batch_size
        self._policy_lag = policy_lag
        self._last_update = last_update
        self._per_task = episodes_per_task
        self._update = updates_done
        self._summed = self._next_new = updates_done * batch_size
        self._free: list[int] = []  # lost tasks, a heap
        self._playing: dict[int, int] = {}  # task -> number of workers playing it
        self._finished: set[int] = set()

    @property
    def update(self) -> int:
        """Number of updates made; also the version of the newest weights."""
        return self._update

    @property
    def oldest_version(self) -> int:
        """The oldest version of the weights that a task can still need."""
        return max(0, self._update - self._policy_lag)

    @property
    def free_tasks(self) -> int:
        """Number of tasks that can be submitted now."""
        return len(self._free) + max(0, self._open_end() - self._next_new) // self._per_task

    def next_task(self) -> EpisodeTask | None:
        """Take the first free task; None if there is none at the moment."""
        if self._free:
            episode = heapq.heappop(self._free)
        elif self._next_new < self._open_end():
            episode = self._next_new
            self._next_new += self._per_task
        else:
            return None
        return self._assign(episode)

    def backup_task(self, episode: int) -> EpisodeTask | None:
        """Duplicate a task that exactly one worker is playing; else None."""
        return self._assign(episode) if self._playing.get(episode) == 1 else None

    def finish(self, episode: int) -> bool:
        """Mark a task as finished; False if its result is a duplicate or already summed."""
        if episode in self._playing:
            del self._playing[episode]
        elif episode in self._free:  # finished after it was considered lost
            self._free.remove(episode)
            heapq.heapify(self._free)
        else:
            return False
        self._finished.add(episode)
        return True

    def lose(self, episode: int) -> bool:
        """Record the loss of a worker that was playing the task.

        Returns:
            Whether it must be played again: no other worker is playing or has played it.
        """
        if episode not in self._playing:
            return False
        self._playing[episode] -= 1
        if self._playing[episode] > 0:
            return False
        del self._playing[episode]
        heapq.heappush(self._free, episode)
        return True

    def next_to_sum(self, most: int) -> range:
        """Up to ``most`` tasks whose gradients can be added now, in order.

        Empty if the next one has not finished, or if the batch is complete: the sum must be applied
        before the next batch starts.
        """
        end = start = self._summed
        limit = min(start + most * self._per_task, (self._update + 1) * self._batch_size)
        while end < limit and end in self._finished:
            end += self._per_task
        return range(start, end, self._per_task)

    def mark_summed(self, episode: int) -> None:
        """Record that the first gradient of :meth:`next_to_sum` has been added.

        Raises:
            ValueError: another task is next.
        """
        if episode not in self.next_to_sum(1):
            raise ValueError(f"episode {episode} is not the next to sum")
        self._finished.remove(episode)
        self._summed += self._per_task

    @property
    def batch_complete(self) -> bool:
        """Whether the gradients of all episodes of this update have been summed."""
        return self._summed == (self._update + 1) * self._batch_size

    def advance(self) -> None:
        """Record that the update has been made and its weights can be used.

        Raises:
            ValueError: the batch is not complete.
        """
        if not self.batch_complete:
            raise ValueError(f"update {self._update} lacks episodes from {self._summed} on")
        self._update += 1

    def _assign(self, episode: int) -> EpisodeTask:
        self._playing[episode] = self._playing.get(episode, 0) + 1
        version = max(0, episode // self._batch_size - self._policy_lag)
        return EpisodeTask(episode, version, self._per_task)

    def _open_end(self) -> int:
        """The first episode that may not be played yet."""
        end = self._update + self._policy_lag + 1
        if self._last_update is not None:
            end = min(end, self._last_update)
        return end * self._batch_size
