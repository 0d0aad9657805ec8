"""The files of a sweep, and the states of its trials that they tell."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import listing
from sweep_folders import BASE, new_sweep, play

from distributed_pg.errors import RunError, UsageError
from distributed_pg.storage.checkpoint_files import numbered
from distributed_pg.sweep.folder import Stopped, SweepFolder, is_sweep
from distributed_pg.sweep.plan import SweepPlan, Trial
from distributed_pg.sweep.trial_states import TrialStates

PLAN = SweepPlan(BASE, (0, 1), {"gamma": (0.9, 0.99)})


def test_a_sweep_is_read_back(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep", gamma=(0.9, 0.99))
    assert is_sweep(folder.path)
    assert not is_sweep(tmp_path)
    again = SweepFolder.open(folder.path)
    assert (again.plan, again.trials, again.stopped) == (PLAN, folder.trials, {})
    trial = again.trials[0]
    assert again.run_of(trial) == tmp_path / "sweep" / "gamma_0.9-seed_0"
    assert again.log_of(trial) == tmp_path / "sweep" / "gamma_0.9-seed_0.log"


def test_without_a_name_it_is_a_new_folder_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = [SweepFolder.create(None, PLAN).path for _ in range(2)]
    assert len(set(made)) == 2
    assert all(path.parent == Path("runs") and "_sweep" in path.name for path in made)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep")
    with pytest.raises(UsageError, match=r"^run_dir: \S+sweep holds a sweep already; --resume "):
        SweepFolder.create(folder.path, PLAN)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/lock").touch()  # of a sweep that was refused
    SweepFolder.create(tmp_path / "full", PLAN)
    (tmp_path / "full/precious").touch()
    before = listing(tmp_path)
    with pytest.raises(UsageError, match=r"^run_dir: \S+full is not empty: it has precious$"):
        SweepFolder.create(tmp_path / "full", PLAN)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"^run_dir: \S+file/sweep cannot be written"):
        SweepFolder.create(tmp_path / "file/sweep", PLAN)
    (tmp_path / "file").unlink()
    assert listing(tmp_path) == before


def test_a_start_that_fails_leaves_nothing_unless_a_trial_has_begun(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "new/sweep")
    with folder.lock():
        pass
    folder.discard()
    assert not (tmp_path / "new").exists()
    folder = new_sweep(tmp_path / "new/sweep")
    play(folder, folder.trials[1])
    folder.discard()
    assert is_sweep(folder.path)
    again = SweepFolder.open(folder.path)
    again.discard()
    assert is_sweep(folder.path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "cannot be used"),
        ("[]", "cannot be used"),
        ("{}", "cannot be used"),
        ("[" * 100_000, "cannot be used"),
        ('{"format": 2}', "has format 2; this version of distributed_pg reads format 1"),
        ('{"format": 1}', "cannot be used"),
        ('{"format": 1, "base": {}, "seeds": [0], "grid": {}}', "the setting is missing"),
        ('{"format": 1, "base": BASE, "seeds": [0], "grid": []}', "cannot be used"),
        ('{"format": 1, "base": BASE, "seeds": "ab", "grid": {}}', "seed: 'a' is not of type int"),
        ('{"format": 1, "base": BASE, "seeds": [0], "grid": {"x": [1]}}', "x: no such setting"),
        ('{"format": 1, "base": BASE, "seeds": [0], "grid": {"gamma": [[[1]]]}}', "cannot be used"),
        (
            '{"format": 1, "base": BASE, "seeds": [true], "grid": {}}',
            "seed: True is not of type int",
        ),
    ],
)
def test_a_damaged_sweep_is_named_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "sweep.json"
    file.write_text(text.replace("BASE", json.dumps(BASE.to_json())))
    with pytest.raises(RunError) as raised:
        SweepFolder.open(tmp_path)
    assert str(raised.value).startswith(f"{file}: ")
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_where_no_sweep_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no sweep \(sweep.json: No such file"):
        SweepFolder.open(tmp_path)


def test_stopped_trials_are_read_back_or_the_file_is_named(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep")
    folder.stop(folder.trials[0], Stopped(50, -20.5))
    folder.stop(folder.trials[1], Stopped(25, -21.0))
    assert SweepFolder.open(folder.path).stopped == {
        "seed_0": Stopped(50, -20.5),
        "seed_1": Stopped(25, -21.0),
    }
    for text in ("", "[]", '{"seed_0": 1}', '{"seed_0": {"frames": 1}}'):
        (folder.path / "stopped.json").write_text(text)
        with pytest.raises(RunError, match=r"stopped.json: cannot be used"):
            SweepFolder.open(folder.path)


def test_a_sweep_takes_more_trials_and_another_end(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep", gamma=(0.9,))
    base = replace(BASE, stop_frames=200)
    more = folder.extended(SweepPlan(base, (2, 0, 1), {"gamma": (0.9, 0.99)}))
    assert len(more.trials) == 6
    assert {trial.config.stop_frames for trial in more.trials} == {200}
    more.save_plan()
    assert SweepFolder.open(folder.path).trials == more.trials


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (SweepPlan(BASE, (0,), {"gamma": (0.9,)}), "has the trial gamma_0.9-seed_1; name its"),
        (SweepPlan(BASE, (0, 1), {"gamma": (0.5,)}), "has the trial gamma_0.9-seed_0; name its"),
        (SweepPlan(BASE, (0, 1), {}), "has the trial gamma_0.9-seed_0; name its seeds"),
        (
            SweepPlan(replace(BASE, hidden_units=5), (0, 1), {"gamma": (0.9,)}),
            "hidden_units: the sweep in",
        ),
    ],
)
def test_trials_are_neither_lost_nor_changed(
    tmp_path: Path, plan: SweepPlan, complaint: str
) -> None:
    folder = new_sweep(tmp_path / "sweep", gamma=(0.9,))
    with pytest.raises(UsageError) as raised:
        folder.extended(plan)
    assert complaint in str(raised.value)


def test_the_files_say_how_far_each_trial_is(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep", seeds=5)
    new, begun, done, early, damaged = folder.trials
    play(folder, begun, -21, -20)
    play(folder, done, *[-20] * 10)
    play(folder, early, *[-20] * 10)
    folder.stop(early, Stopped(50, -20.0))
    play(folder, damaged, *[-20] * 10)
    numbered(folder.run_of(damaged) / "checkpoints")[-1].write_bytes(b"nothing")
    states = TrialStates(folder)
    assert [(s.status, s.update) for s in states.all()] == [
        ("waiting", 0),
        ("waiting", 2),
        ("done", 10),
        ("stopped early", 10),
        ("waiting", 10),
    ]
    assert states.waiting() == [new, begun, damaged]
    assert states.updates == 32
    assert [folder.has_begun(t) for t in folder.trials] == [False, True, True, True, True]


def test_states_follow_the_trials(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep")
    first, second = folder.trials
    states = TrialStates(folder)
    before = states.all()
    states.started(first, 3)
    assert [(s.status, s.workers) for s in states.all()] == [("running", 3), ("waiting", 0)]
    play(folder, first, *[-20] * 10)
    assert states.of(first).update == 10
    assert states.ended(first) == "done"
    states.failed(second, "it is broken")
    assert [(s.status, s.workers, s.reason) for s in states.all()] == [
        ("done", 0, ""),
        ("failed", 0, "it is broken"),
    ]
    assert states.waiting() == []
    assert [s.status for s in before] == ["waiting", "waiting"]  # another thread may read them


def test_what_a_trial_killed_at_its_start_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep")
    trial = folder.trials[0]
    run = folder.run_of(trial)
    folder.clear(trial)  # nothing is there
    (run / "checkpoints").mkdir(parents=True)
    for name in ("config.json", "metrics.jsonl", "checkpoints/.update-0.tmp", "notes.txt"):
        (run / name).touch()
    folder.clear(trial)
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
    (folder.path / "seed_1").touch()
    with pytest.raises(RunError, match=r"seed_1: cannot be written \(Not a directory\)"):
        folder.clear(folder.trials[1])


def test_a_look_reads_no_trial_but_the_one_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep of hundreds looks four times a second."""
    folder = new_sweep(tmp_path / "sweep", seeds=5)
    for trial in folder.trials:
        play(folder, trial, *[-20] * 3)
    states = TrialStates(folder)
    read: list[Trial] = []
    for reader in ("last_record", "is_done"):
        monkeypatch.setattr(folder, reader, read.append)
    states.of(folder.trials[0])
    assert len(states.all()) == 5
    assert len(states.waiting()) == 5
    assert states.updates > 0
    assert read == folder.trials[:1]
