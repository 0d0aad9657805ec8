"""When a second worker is given an episode, by a clock that is set by hand."""

from simulated_cluster import Clock

from distributed_pg.cluster import Failed, Finished, Lost
from distributed_pg.dispatch import Dispatcher
from distributed_pg.policy import Policy
from distributed_pg.rollout import EpisodeStats
from distributed_pg.schedule import Schedule, Ticket


class ScriptedCluster:
    """Three workers; what they answer is put in ``events`` by hand."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.events: list[Finished | Lost | Failed] = []
        self.workers = 3
        self.idle = 3

    def publish(self, version: int, policy: Policy) -> None: ...

    def retire(self, before: int) -> None: ...

    def has_room(self, free: int) -> bool:
        return free > 0 and self.idle > 0

    def give(self, ticket: Ticket) -> None:
        self.given.append(ticket.episode)
        self.idle -= 1

    def wait(self, timeout: float, deadline: float) -> list[Finished | Lost | Failed]:
        events, self.events = self.events, []
        return events

    def finish(self, episode: int, seconds: float) -> None:
        """An episode of one second is announced, ``seconds`` after it could begin."""
        stats = EpisodeStats(0.0, 10, 40, 1.0, 1.0, 0, 0, 0.0)
        self.events.append(Finished(Ticket(episode, 0), stats, None, seconds))
        self.idle += 1


def test_a_second_worker_plays_what_takes_four_times_as_long_as_usual() -> None:
    cluster, clock, told = ScriptedCluster(), Clock(), list[str]()
    schedule = Schedule(batch_size=3, policy_lag=0, last_update=1)
    dispatcher = Dispatcher(
        schedule, cluster, told.append, backup_after=4.0, hang_seconds=1e9, clock=clock
    )
    dispatcher.hand_out()
    assert cluster.given == [0, 1, 2]
    # The learner is so busy that it takes the answers in after 30 s, and not at once: that is usual
    # then. A second worker would only make it busier.
    cluster.finish(0, seconds=30.0)
    cluster.finish(1, seconds=30.0)
    clock.now = 30.0
    assert len(dispatcher.collect(0.0)) == 2
    clock.now = 4 * 30.0
    dispatcher.hand_out()
    assert cluster.given == [0, 1, 2]
    assert not told
    clock.now += 0.1
    dispatcher.hand_out()
    dispatcher.hand_out()
    assert cluster.given == [0, 1, 2, 2]
    assert told == ["episode 2 takes 120.1 s, where 30.0 s is usual: a second worker plays it too"]
