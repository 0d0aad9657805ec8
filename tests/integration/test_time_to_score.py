"""The benchmark's time to a score, measured with the commands that users run."""

from importlib.util import find_spec

import pytest

from distributed_pg.benchmark import time_to_score
from distributed_pg.benchmark.time_to_score import TimeToScore, _figures, times_to_score
from distributed_pg.errors import RunError


def a_run(**changes: object) -> TimeToScore:
    values = {"minutes": 2.0, "episodes": 100, "frames": 240_000, "mean_100": 0.5} | changes
    return TimeToScore("training", 2, 0, 0.0, **values)  # type: ignore[arg-type]


def test_a_score_is_that_of_a_hundred_games() -> None:
    assert a_run().reached
    assert a_run().frames_per_second == 2000.0
    assert a_run(mean_100=0.0).reached
    assert not a_run(mean_100=-0.01).reached
    assert not a_run(episodes=99).reached
    assert not a_run(mean_100=None).reached


def test_a_run_that_takes_too_long_is_given_up_and_a_missing_library_is_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time_to_score, "find_spec", {}.get)
    lines: list[str] = []
    (run,) = times_to_score(21.0, 1, 0.05, 3, with_ppo=True, progress=lines.append)
    assert (run.name, run.workers, run.seed, run.score) == ("training", 1, 3, 21.0)
    assert not run.reached
    assert 0.0 < run.minutes < 1.0
    assert lines == [
        "time to a score: training with 1 worker, seed 3, until 21 or 0.05 minutes",
        "time to a score: stable_baselines3 is not installed, so its PPO is left out",
    ]


def test_the_figures_are_those_of_the_last_update() -> None:
    line = {"update": 2, "episodes": 4, "frames": 1800, "mean_100": -2, "wall_seconds": 180.0}
    assert _figures(line, 9.0) == {
        "minutes": 3.0,
        "episodes": 4,
        "frames": 1800,
        "mean_100": -2,
    }


def test_a_run_may_be_given_up_before_its_first_game_ends() -> None:
    run = a_run(**_figures(None, 0.5))
    assert (run.minutes, run.episodes, run.frames, run.mean_100) == (0.5, 0, 0, None)
    assert run.frames_per_second == 0.0
    assert not run.reached


def test_a_run_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(RunError, match=r"^a run that was to be timed failed: .+$"):
        times_to_score(21.0, 1, 0.02, 3)


@pytest.mark.skipif(not find_spec("stable_baselines3"), reason="it is no dependency")
def test_the_other_ppo_learns_until_it_is_given_up() -> None:
    _, run = times_to_score(21.0, 2, 0.3, 0, with_ppo=True)
    assert run.name == "sb3-ppo"
    assert not run.reached
    assert 0.3 <= run.minutes < 5.0
    assert run.frames >= 2 * 4 * 1000
    assert run.episodes >= 1
    assert run.mean_100 is not None
    assert -21.0 <= run.mean_100 < 0.0
