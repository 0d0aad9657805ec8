"""The schedule under any order of completion, loss and duplication."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed_pg.training.schedule import EpisodeTask, Schedule


def test_by_hand_without_lag() -> None:
    schedule = Schedule(batch_size=2, policy_lag=0)
    assert schedule.next_task() == EpisodeTask(0, 0)
    assert schedule.next_task() == EpisodeTask(1, 0)
    assert schedule.next_task() is None  # nobody plays update 1's episodes yet
    assert schedule.finish(1)
    assert not schedule.next_to_sum(9)  # episode 0 comes first
    assert schedule.finish(0)
    assert list(schedule.next_to_sum(1)) == [0]
    assert list(schedule.next_to_sum(9)) == [0, 1]
    for episode in (0, 1):
        schedule.mark_summed(episode)
    assert schedule.batch_complete
    assert schedule.free_tasks == 0
    schedule.advance()
    assert schedule.free_tasks == 2
    assert schedule.next_task() == EpisodeTask(2, 1)


def test_by_hand_with_lag() -> None:
    schedule = Schedule(batch_size=2, policy_lag=1)
    tasks = [schedule.next_task() for _ in range(5)]
    assert tasks == [
        EpisodeTask(0, 0),
        EpisodeTask(1, 0),
        EpisodeTask(2, 0),
        EpisodeTask(3, 0),
        None,
    ]
    for episode in (3, 2, 1, 0):
        assert schedule.finish(episode)
    for episode in (0, 1):
        schedule.mark_summed(episode)
    # Episodes 2 and 3 are there, but belong to the next sum.
    assert not schedule.next_to_sum(9)
    schedule.advance()
    assert list(schedule.next_to_sum(9)) == [2, 3]
    assert schedule.next_task() == EpisodeTask(4, 1)
    assert schedule.oldest_version == 0


def test_by_hand_with_two_episodes_a_task() -> None:
    schedule = Schedule(batch_size=4, policy_lag=1, last_update=2, episodes_per_task=2)
    assert schedule.free_tasks == 4
    tasks = [schedule.next_task() for _ in range(5)]
    assert tasks == [*(EpisodeTask(first, 0, 2) for first in (0, 2, 4, 6)), None]
    assert [str(task) for task in tasks[1:3]] == ["episode group 2-3", "episode group 4-5"]
    assert schedule.lose(2)
    assert schedule.free_tasks == 1
    assert schedule.next_task() == EpisodeTask(2, 0, 2)
    for first in (4, 2, 0):
        assert schedule.finish(first)
    assert list(schedule.next_to_sum(1)) == [0]
    assert list(schedule.next_to_sum(9)) == [0, 2]
    for first in (0, 2):
        schedule.mark_summed(first)
    assert schedule.batch_complete
    schedule.advance()
    assert list(schedule.next_to_sum(9)) == [4]


def test_lost_tickets_are_given_again_first() -> None:
    schedule = Schedule(batch_size=4, policy_lag=0)
    for _ in range(3):
        schedule.next_task()
    assert schedule.free_tasks == 1
    schedule.lose(1)
    assert schedule.free_tasks == 2
    assert schedule.next_task() == EpisodeTask(1, 0)
    assert schedule.next_task() == EpisodeTask(3, 0)


def test_a_late_answer_of_a_lost_attempt_counts() -> None:
    schedule = Schedule(batch_size=1, policy_lag=0)
    schedule.next_task()
    schedule.lose(0)
    assert schedule.finish(0)
    assert not schedule.finish(0)
    assert schedule.next_task() is None
    assert list(schedule.next_to_sum(9)) == [0]


def test_an_episode_that_two_workers_play_is_lost_only_with_both() -> None:
    schedule = Schedule(batch_size=2, policy_lag=0)
    assert schedule.backup_task(0) is None  # nobody plays it yet
    schedule.next_task()
    assert schedule.backup_task(0) == EpisodeTask(0, 0)
    assert schedule.backup_task(0) is None  # two are enough
    assert not schedule.lose(0)
    assert schedule.backup_task(0) == EpisodeTask(0, 0)
    assert not schedule.lose(0)
    assert schedule.lose(0)
    assert schedule.next_task() == EpisodeTask(0, 0)


def test_the_loser_of_two_workers_changes_nothing() -> None:
    schedule = Schedule(batch_size=2, policy_lag=0)
    schedule.next_task()
    schedule.backup_task(0)
    assert schedule.finish(0)
    assert not schedule.lose(0)
    assert not schedule.finish(0)
    assert list(schedule.next_to_sum(9)) == [0]
    assert schedule.next_task() == EpisodeTask(1, 0)


def test_unknown_and_summed_episodes_are_ignored() -> None:
    schedule = Schedule(batch_size=1, policy_lag=0)
    assert not schedule.finish(0)  # nobody was asked to play it
    schedule.next_task()
    schedule.finish(0)
    schedule.mark_summed(0)
    schedule.lose(0)
    assert not schedule.finish(0)
    assert schedule.batch_complete


def test_a_resumed_run_goes_on_with_its_versions() -> None:
    schedule = Schedule(batch_size=2, policy_lag=1, updates_done=5, last_update=6)
    assert [schedule.next_task() for _ in range(3)] == [
        EpisodeTask(10, 4),
        EpisodeTask(11, 4),
        None,
    ]
    assert schedule.oldest_version == 4


def test_misuse_is_refused() -> None:
    schedule = Schedule(batch_size=2, policy_lag=0)
    with pytest.raises(ValueError, match="episode 1 is not the next"):
        schedule.mark_summed(1)
    with pytest.raises(ValueError, match="update 0 lacks episodes from 0 on"):
        schedule.advance()


@settings(max_examples=3 * settings().max_examples)
@given(
    tasks=st.integers(1, 20),
    per_task=st.integers(1, 4),
    policy_lag=st.integers(0, 3),
    workers=st.integers(1, 64),
    updates_done=st.integers(0, 3),
    updates=st.integers(1, 6),
    loss=st.floats(0, 0.5),
    seed=st.integers(0, 2**32),
)
def test_every_episode_is_summed_once_in_order_with_the_right_weights(
    tasks: int,
    per_task: int,
    policy_lag: int,
    workers: int,
    updates_done: int,
    updates: int,
    loss: float,
    seed: int,
) -> None:
    chance = random.Random(seed)
    last, batch_size = updates_done + updates, tasks * per_task
    schedule = Schedule(batch_size, policy_lag, updates_done, last, per_task)
    playing: list[EpisodeTask] = []
    late: list[EpisodeTask] = []  # attempts that were given up, and may answer yet
    summed: list[int] = []
    played_with: dict[int, int] = {}
    steps = 0
    while schedule.update < last:
        steps += 1
        assert steps < 10_000, "deadlock"
        free = schedule.free_tasks
        while len(playing) < workers and (task := schedule.next_task()) is not None:
            free -= 1
            assert schedule.free_tasks == free
            assert task.version <= schedule.update, "weights that do not exist yet"
            assert task.version >= schedule.oldest_version, "weights that are forgotten"
            playing.append(task)
        if playing and chance.random() < 0.2:
            backup = schedule.backup_task(chance.choice(playing).episode)
            if backup is not None:
                assert backup.version >= schedule.oldest_version
                playing.append(backup)
        assert playing or late or schedule.next_to_sum(1), "deadlock"
        if playing:
            task = playing.pop(chance.randrange(len(playing)))
            if chance.random() < loss:
                schedule.lose(task.episode)
                late.append(task)
            else:
                if schedule.finish(task.episode):
                    played_with[task.episode] = task.version
                if chance.random() < loss:
                    assert not schedule.finish(task.episode), "a duplicate was taken"
        if late and chance.random() < 0.3:
            task = late.pop(chance.randrange(len(late)))
            if schedule.finish(task.episode):
                played_with[task.episode] = task.version
        for episode in schedule.next_to_sum(chance.randint(1, 20)):
            summed.append(episode)
            schedule.mark_summed(episode)
        if schedule.batch_complete:
            schedule.advance()
            assert len(summed) == (schedule.update - updates_done) * tasks
    assert summed == list(range(updates_done * batch_size, last * batch_size, per_task))
    for episode, version in played_with.items():
        assert version == max(0, episode // batch_size - policy_lag)
    assert schedule.next_task() is None


@given(policy_lag=st.integers(0, 3), batch_size=st.integers(1, 8))
def test_no_worker_waits_while_the_lag_allows_more(policy_lag: int, batch_size: int) -> None:
    schedule = Schedule(batch_size, policy_lag)
    given_out = 0
    free = schedule.free_tasks
    while schedule.next_task() is not None:
        given_out += 1
    assert given_out == free == (policy_lag + 1) * batch_size
