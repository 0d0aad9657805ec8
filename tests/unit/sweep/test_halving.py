"""Which trials are stopped early."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sweep_folders import BASE, new_sweep, play

from distributed_pg.errors import RunError, UsageError
from distributed_pg.sweep.folder import Stopped, SweepFolder
from distributed_pg.sweep.halving import Rungs, is_hopeless, rungs
from distributed_pg.sweep.plan import SweepPlan, Trial
from distributed_pg.sweep.trial_states import TrialStates


@pytest.mark.parametrize(
    ("frames", "factor", "expected"),
    [
        (20_000_000, 3, [2_222_222, 6_666_666]),
        (1600, 4, [100, 400]),
        (100, 2, [6, 12, 25, 50]),
        (10, 100, []),
    ],
)
def test_rungs(frames: int, factor: int, expected: list[int]) -> None:
    assert rungs(frames, factor) == expected


@pytest.mark.parametrize(
    ("mean", "others", "factor", "hopeless"),
    [
        (-21, [], 2, False),
        (-20, [-21], 2, False),
        (-21, [-20], 2, True),
        (-20, [-20], 2, False),  # no other is better
        (-21, [-20, -22], 2, False),  # the second of three has one of two places
        (-22, [-20, -21], 2, True),
        (-21, [-20, -22, -22], 4, True),
        (-21, [-20, -22, -22, -22], 4, False),  # five trials: two places
    ],
)
def test_hopeless(mean: float, others: list[float], factor: int, hopeless: bool) -> None:
    assert is_hopeless(mean, others, factor) is hopeless


@pytest.mark.parametrize("factor", [2, 3, 10])
def test_the_first_at_a_rung_goes_on(factor: int) -> None:
    assert not is_hopeless(-21.0, [], factor)


def is_stopped(rungs: Rungs, folder: SweepFolder, trial: Trial) -> bool:
    record = folder.last_record(trial)
    assert record is not None
    return rungs.is_hopeless(trial, record)


def test_a_trial_worse_at_a_rung_is_stopped_for_good(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep", seeds=3)
    compared = Rungs(folder, 2)  # at 6, 12, 25 and 50 frames
    good, bad, quick = folder.trials
    play(folder, good, -21, -20, -19)
    assert not is_stopped(compared, folder, good)
    play(folder, bad, -21, -21, -20)
    assert is_stopped(compared, folder, bad)
    assert folder.stopped == {bad.name: Stopped(12, -21.0)}
    play(folder, quick, -20, -19, -18, -17, -16)
    assert not is_stopped(compared, folder, quick)
    again = SweepFolder.open(folder.path)
    assert again.stopped == folder.stopped
    assert [s.status for s in TrialStates(again).all()] == ["waiting", "stopped early", "waiting"]
    # What a sweep that is resumed compares with are the means at the rungs, not the last ones.
    resumed = Rungs(again, 2)
    assert resumed._means == compared._means
    assert resumed._means[25] == {good.name: -19.0, bad.name: -20.0, quick.name: -18.0}


def test_trials_are_compared_by_frames(tmp_path: Path) -> None:
    plan = SweepPlan(replace(BASE, stop_frames=None, stop_episodes=5), (0,), {})
    with pytest.raises(UsageError, match=r"^halving: .* --stop-frames; give it as well$"):
        Rungs(SweepFolder.create(tmp_path / "sweep", plan), 3)


def test_metrics_that_are_damaged_are_named(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep")
    trial = folder.trials[0]
    play(folder, trial, -21, -20)
    path = folder.run_of(trial) / "metrics.jsonl"
    path.write_bytes(b"[]\n" + path.read_bytes())
    with pytest.raises(RunError, match=r"metrics.jsonl: cannot be used"):
        Rungs(folder, 2)


def test_a_trial_just_resumed_from_an_earlier_update_is_compared_later(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep")
    trial = folder.trials[0]
    play(folder, trial, -21, -20)
    compared, record = Rungs(new_sweep(tmp_path / "other"), 2), folder.last_record(trial)
    assert record is not None
    compared._folder = folder
    path = folder.run_of(trial) / "metrics.jsonl"
    path.write_text(json.dumps(record | {"frames": 3}) + "\n")
    assert not compared.is_hopeless(trial, record)
    assert not compared._means[12]
