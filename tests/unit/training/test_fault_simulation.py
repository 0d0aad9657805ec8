"""The learner keeps its promises under faults, and the simulation notices when it does not."""

import pytest
from fault_simulation import problem

from distributed_pg.training.dispatcher import Dispatcher
from distributed_pg.training.schedule import EpisodeTask, Schedule

SEEDS = 100


def test_every_run_keeps_its_promises() -> None:
    problems = [found for seed in range(SEEDS) if (found := problem(seed))]
    assert not problems


class DoubleCount(Schedule):
    """An episode that was lost once is summed twice."""

    def __init__(self, *settings: int) -> None:
        super().__init__(*settings)
        self._doubled: set[int] = set()

    def lose(self, episode: int) -> bool:
        self._doubled.add(episode)
        return super().lose(episode)

    def mark_summed(self, episode: int) -> None:
        if episode in self._doubled:
            self._doubled.remove(episode)
            self._finished.remove(episode)
            self._free.append(episode)
        else:
            super().mark_summed(episode)


class WrongVersion(Schedule):
    """A task that was lost is played again with the newest weights."""

    def next_task(self) -> EpisodeTask | None:
        again = bool(self._free)
        task = super().next_task()
        return EpisodeTask(task.episode, self.update) if task and again else task


class OutOfOrder(Schedule):
    """The batch is summed in the order of arrival once all of it is there."""

    def next_to_sum(self, most: int) -> range:
        ready = super().next_to_sum(most)
        return ready[::-1] if len(ready) == self._batch_size else ready

    def mark_summed(self, episode: int) -> None:
        self._finished.remove(episode)
        self._summed += 1


class LostTask(Schedule):
    """What a lost worker played is forgotten."""

    def lose(self, episode: int) -> bool:
        self._playing.pop(episode, None)
        return True


class IgnoresHang(Dispatcher):
    """Waits for a worker for ever."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        settings["hang_seconds"] = 1e12
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("bug", [DoubleCount, WrongVersion, OutOfOrder, LostTask, IgnoresHang])
def test_a_bug_is_noticed_within_100_seeds(monkeypatch: pytest.MonkeyPatch, bug: type) -> None:
    name = "Dispatcher" if issubclass(bug, Dispatcher) else "Schedule"
    monkeypatch.setattr(f"distributed_pg.training.learner.{name}", bug)
    assert any(problem(seed) for seed in range(100))
