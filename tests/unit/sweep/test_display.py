"""What the user sees of a sweep."""

import io
import time
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from sweep_folders import BASE

from distributed_pg.config import TrainConfig
from distributed_pg.sweep.display import SweepDisplay, share_done
from distributed_pg.sweep.plan import SweepPlan, Trial
from distributed_pg.sweep.sweeper import SweepState
from distributed_pg.sweep.trial_states import Status, TrialState

TRIALS = list(SweepPlan(BASE, (0, 1, 2, 3), {}).trials())


def state(seed: int, status: Status, frames: int = 0, workers: int = 0) -> TrialState:
    record = {"frames": frames, "episodes": 1, "mean_100": -20.25, "frames_per_second": 1234.6}
    return TrialState(TRIALS[seed], status, workers, record if frames else None)


def shown(*, live: bool = False, height: int = 24) -> tuple[SweepDisplay, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, width=100, height=height, force_terminal=live, highlight=False)
    return SweepDisplay(console, live=live), file


def test_a_pipe_gets_a_line_now_and_then_and_one_for_each_trial_that_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display, file = shown()
    with display:
        first = [state(0, "done", 100), state(1, "running", 50, 2), state(2, "waiting")]
        display.updated(SweepState(first, 2))
        now[0] = 5.0
        display.updated(SweepState([first[0], state(1, "running", 60, 2), first[2]], 2))
        now[0] = 10.0
        display.updated(SweepState([first[0], state(1, "done", 100), state(2, "running", 0, 1)], 2))
        display.message("something happened")
        table = Table("settings")
        display.conclude([table, "Next:"])
    lines = [line.partition(" ")[2] for line in file.getvalue().splitlines()[:4]]
    assert lines == [
        "1 of 3 trials done, 1 running, 1 waiting | 2 workers on 2 CPUs",
        "seed_1: done, 100 frames, last 100 -20.25",
        # Half a trial took ten seconds, and one is left.
        "2 of 3 trials done, 1 running, left 0:00:20 | 1 workers on 2 CPUs",
        "something happened",
    ]
    assert "settings" in file.getvalue()
    assert file.getvalue().endswith("Next:\n")


def test_a_failed_trial_is_counted_and_not_told_twice() -> None:
    display, file = shown()
    with display:
        display.updated(SweepState([state(0, "running", 0, 1)], 1))
        display.updated(SweepState([state(0, "failed")], 1))
        display._last_line = -1e9
        display.updated(SweepState([state(0, "failed")], 1))
    assert "seed_0" not in file.getvalue()
    assert "0 of 1 trials done, 1 failed" in file.getvalue()


def test_a_terminal_shows_the_trials_that_run_as_far_as_it_is_high() -> None:
    display, file = shown(live=True, height=8)
    with display:
        display.refresh()
        assert "Starting Ray (0 s)" in file.getvalue()
        running = [state(seed, "running", 25 * seed, 1) for seed in range(4)]
        display.updated(SweepState(running, 4))
        display.refresh()
    text = file.getvalue()
    assert "0 of 4 trials done, 4 running" in text
    assert "seed_0" in text
    assert "####............  25%" in text
    assert "and 2 more running" in text
    assert "seed_3" not in text
    assert "Ctrl-C saves and stops all; --resume continues" in text


@pytest.mark.parametrize(
    ("stops", "status", "record", "share"),
    [
        ({"stop_frames": 100}, "waiting", None, 0.0),
        ({"stop_frames": 100}, "running", {"frames": 25, "episodes": 1}, 0.25),
        ({"stop_frames": 100}, "running", {"frames": 104, "episodes": 1}, 1.0),
        ({"stop_frames": 100}, "failed", {"frames": 25, "episodes": 1}, 1.0),
        ({"stop_frames": 100}, "stopped early", {"frames": 25, "episodes": 1}, 1.0),
        (
            {"stop_frames": 100, "stop_episodes": 2},
            "running",
            {"frames": 25, "episodes": 1},
            0.5,
        ),
        ({"stop_reward": 0.0}, "running", {"frames": 25, "episodes": 1}, 0.0),
    ],
)
def test_the_share_that_is_done(
    stops: dict[str, Any], status: Status, record: dict[str, Any] | None, share: float
) -> None:
    trial = Trial("", "", TrainConfig(**stops))
    assert share_done(TrialState(trial, status, 0, record)) == share
