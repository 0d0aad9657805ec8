"""When a second worker is given an episode, by a clock that is set by hand."""

import pytest
from simulated_pool import Clock

from distributed_pg.algo.policy import Policy
from distributed_pg.episode import EpisodeStats
from distributed_pg.errors import RunError
from distributed_pg.training.dispatcher import Dispatcher
from distributed_pg.training.schedule import EpisodeTask, Schedule
from distributed_pg.training.worker_pool import EpisodeDone, EpisodeFailed, PoolEvent, WorkerLost

STATS = EpisodeStats(0.0, 10, 40, 1.0, 1.0, 0, 0, 0.0)
FINISHED = EpisodeDone(EpisodeTask(2, 0), [STATS], None, 1.0)


class ScriptedCluster:
    """Three workers; what they answer is put in ``events`` by hand."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.events: list[PoolEvent] = []
        self.workers = 3
        self.idle = 3

    def broadcast(self, version: int, policy: Policy) -> None: ...

    def drop_weights(self, before: int) -> None: ...

    def can_submit(self, free: int) -> bool:
        return free > 0 and self.idle > 0

    def submit(self, task: EpisodeTask) -> None:
        self.given.append(task.episode)
        self.idle -= 1

    def poll(self, timeout: float, deadline: float) -> list[PoolEvent]:
        events, self.events = self.events, []
        return events

    def finish(self, episode: int, seconds: float) -> None:
        """An episode of one second is announced, ``seconds`` after it could begin."""
        self.events.append(EpisodeDone(EpisodeTask(episode, 0), [STATS], None, seconds))
        self.idle += 1


def dispatcher_of(schedule: Schedule, pool: ScriptedCluster, clock: Clock) -> Dispatcher:
    return Dispatcher(schedule, pool, backup_after=4.0, hang_seconds=1e9, clock=clock)


def look(dispatcher: Dispatcher, clock: Clock, until: float) -> None:
    """What the learner does while nothing comes back."""
    while clock.now < until:
        clock.now = min(clock.now + 0.5, until)
        assert dispatcher.collect(0.5) == []
        dispatcher.hand_out()


def test_a_second_worker_plays_what_takes_four_times_as_long_as_usual(told: list[str]) -> None:
    pool, clock = ScriptedCluster(), Clock()
    schedule = Schedule(batch_size=3, policy_lag=0, last_update=1)
    dispatcher = dispatcher_of(schedule, pool, clock)
    dispatcher.hand_out()
    assert pool.given == [0, 1, 2]
    look(dispatcher, clock, until=30.0)
    # The learner is so busy that it takes the answers in after 30 s, and not at once: that is usual
    # then. A second worker would only make it busier.
    pool.finish(0, seconds=30.0)
    pool.finish(1, seconds=30.0)
    assert len(dispatcher.collect(0.0)) == 2
    look(dispatcher, clock, until=4 * 30.0)
    assert pool.given == [0, 1, 2]
    assert not told
    look(dispatcher, clock, until=4 * 30.0 + 0.1)
    dispatcher.hand_out()
    assert pool.given == [0, 1, 2, 2]
    assert told == ["episode 2 takes over 4 times the usual 30.0 s: a second worker plays it too"]


@pytest.mark.parametrize("usual", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("stalls", [1, 3])
def test_a_learner_that_stood_still_takes_no_episode_for_slow(
    usual: float, stalls: int, told: list[str]
) -> None:
    pool, clock = ScriptedCluster(), Clock()
    schedule = Schedule(batch_size=3, policy_lag=0, last_update=1)
    dispatcher = dispatcher_of(schedule, pool, clock)
    dispatcher.hand_out()
    pool.finish(0, seconds=usual)
    assert len(dispatcher.collect(0.0)) == 1
    for _ in range(stalls):
        clock.now += 600.0  # Ctrl-Z, and fg
        dispatcher.hand_out()
        assert dispatcher.collect(0.5) == []
        dispatcher.hand_out()
    assert pool.given == [0, 1, 2]
    assert not told
    # It looks again, and an episode that goes on hanging is found.
    look(dispatcher, clock, until=clock.now + max(40 * 0.5, 4 * usual))
    assert pool.given == [0, 1, 2, 1]


def test_what_is_said_of_an_episode_that_two_workers_play_is_true(told: list[str]) -> None:
    lost, failed = "the node died", "ValueError: no"
    cases: list[tuple[list[PoolEvent], str]] = [
        (
            [WorkerLost(EpisodeTask(2, 0), lost)],
            f"episode 2 lost a worker; another worker is still playing it ({lost})",
        ),
        (
            [EpisodeFailed(EpisodeTask(2, 0), failed, "")],
            f"episode 2 failed; another worker is still playing it ({failed})",
        ),
        (
            [FINISHED, WorkerLost(EpisodeTask(2, 0), lost)],
            f"episode 2 lost a worker; another worker has played it ({lost})",
        ),
        (
            [FINISHED, EpisodeFailed(EpisodeTask(2, 0), failed, "")],
            f"episode 2 failed; another worker has played it ({failed})",
        ),
    ]
    for events, message in cases:
        pool, clock = ScriptedCluster(), Clock()
        schedule = Schedule(batch_size=3, policy_lag=0, last_update=1)
        dispatcher = dispatcher_of(schedule, pool, clock)
        dispatcher.hand_out()
        assert schedule.backup_task(2) is not None
        pool.events += events
        dispatcher.collect(0.0)
        assert told == [message]
        told.clear()
        assert schedule.free_tasks == 0


def test_what_happens_to_a_copy_of_a_finished_episode_is_not_held_against_it(
    told: list[str],
) -> None:
    """However often: nobody waits for it any more."""
    pool, clock = ScriptedCluster(), Clock()
    schedule = Schedule(batch_size=3, policy_lag=0, last_update=1)
    dispatcher = dispatcher_of(schedule, pool, clock)
    dispatcher.hand_out()
    pool.events = [FINISHED, *3 * [EpisodeFailed(EpisodeTask(2, 0), "ValueError: no", "")]]
    assert len(dispatcher.collect(0.0)) == 1
    pool.events += 20 * [WorkerLost(EpisodeTask(2, 0), "the node died")]
    assert dispatcher.collect(0.0) == []
    assert len(told) == 23


@pytest.mark.parametrize(
    ("event", "times", "said"),
    [
        (
            EpisodeFailed(EpisodeTask(0, 0), "ValueError: no", "Traceback: all of it"),
            3,
            "episode 0 (weights version 0) failed 3 times; the last time:\nTraceback: all of it",
        ),
        (
            WorkerLost(EpisodeTask(0, 0), "the node died"),
            20,
            "episode 0 (weights version 0) lost 20 workers (the node died)",
        ),
    ],
)
def test_an_episode_is_tried_again_and_again_but_not_for_ever(
    told: list[str], event: PoolEvent, times: int, said: str
) -> None:
    pool, clock = ScriptedCluster(), Clock()
    dispatcher = dispatcher_of(Schedule(batch_size=1, policy_lag=0, last_update=1), pool, clock)
    for _ in range(times - 1):
        dispatcher.hand_out()
        pool.events, pool.idle = [event], pool.idle + 1
        assert dispatcher.collect(0.0) == []
    dispatcher.hand_out()
    assert pool.given == [0] * times
    assert len(told) == times - 1
    pool.events = [event]
    with pytest.raises(RunError) as raised:
        dispatcher.collect(0.0)
    assert str(raised.value) == said
