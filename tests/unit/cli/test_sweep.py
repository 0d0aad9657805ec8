"""What ``sweep`` reads from its command line, and refuses."""

from pathlib import Path

import pytest
from small_runs import listing
from sweep_folders import new_sweep, play

from distributed_pg.cli.main import main, parse_command
from distributed_pg.cli.sweep import _folder
from distributed_pg.presets import preset
from distributed_pg.runtime import session
from distributed_pg.sweep import sweeper
from distributed_pg.sweep.folder import SweepFolder
from distributed_pg.sweep.plan import SweepPlan


def plan_of(line: str, folder: Path) -> SweepPlan:
    return _folder(parse_command(["sweep", *line.split(), "--run-dir", str(folder)])).plan


def test_values_are_read_as_train_reads_them(tmp_path: Path) -> None:
    args = ["sweep", "--seeds", "0,2-3", "--stop-frames", "2e6", "--run-dir", str(tmp_path / "a")]
    args += ["--set", "gamma=0.9, 0.99", "--set=--batch-size=4,1e1", "--set", "warm_up=true"]
    args += ["--set", "anneal_episodes=None,2e3", "--set", "actions=UP DOWN,NOOP UP DOWN"]
    plan = _folder(parse_command(args)).plan
    assert (plan.seeds, plan.base.stop_frames) == ((0, 2, 3), 2_000_000)
    assert plan.grid == {
        "gamma": (0.9, 0.99),
        "batch_size": (4, 10),
        "warm_up": (True,),
        "anneal_episodes": (None, 2000),
        "actions": (("UP", "DOWN"), ("NOOP", "UP", "DOWN")),
    }
    plain = plan_of("--preset karpathy --stop-episodes 8", tmp_path / "b")
    assert (plain.seeds, plain.base.batch_size) == ((0, 1, 2, 3, 4), 10)


def test_a_resumed_sweep_keeps_what_is_not_given(tmp_path: Path) -> None:
    new_sweep(tmp_path / "sweep", gamma=(0.9,))

    def resumed(*arguments: str) -> SweepPlan:
        return _folder(
            parse_command(["sweep", "--resume", str(tmp_path / "sweep"), *arguments])
        ).plan

    saved = SweepFolder.open(tmp_path / "sweep").plan
    assert (resumed().seeds, resumed().grid) == (saved.seeds, saved.grid)
    assert resumed().base.stop_frames == 100
    more = resumed("--seeds", "0-2", "--set", "gamma=0.9,0.5", "--stop-episodes", "7")
    assert (more.seeds, more.grid) == ((0, 1, 2), {"gamma": (0.9, 0.5)})
    assert (more.base.stop_frames, more.base.stop_episodes) == (None, 7)


def test_all_trials_have_the_shape_that_is_given() -> None:
    config = parse_command(["sweep", "--shape-for", "16", "--stop-frames", "1"]).config
    assert config == preset("default", shape_for=16, stop_frames=1)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "sweep: name a stop condition, such as --stop-frames 20e6"),
        ("--stop-frames 1 --set gamma=2", "--gamma: 2.0 is not a number from 0 to 1"),
        ("--stop-frames 1 --set gamma=x", "--gamma: 'x' is not a number"),
        ("--stop-frames 1 --set gamma=--help", "Missing value for argument '--gamma'"),
        ("--stop-frames 1 --set gama=1", "gama: no such setting; did you mean gamma?"),
        ("--stop-frames 1 --set to_json=1", "to_json: no such setting"),
        ("--stop-frames 1 --set gamma=", "--set: 'gamma=' lacks a value"),
        ("--stop-frames 1 --set gamma=0.9,,0.5", "--set: 'gamma=0.9,,0.5' lacks a value"),
        ("--stop-frames 1 --set gamma", "--set: 'gamma' is not NAME=VALUE,VALUE"),
        ("--stop-frames 1 --set gamma=1 --set gamma=0", "--set: gamma is given twice"),
        ("--stop-frames 1 --set gamma=1,1.0", "--gamma: 1.0 is given twice"),
        ("--stop-frames 1 --set warm_up=maybe", "--warm-up: 'maybe' is not true or false"),
        ("--stop-frames 1 --set seed=1,2", "--seed: --seeds varies it"),
        ("--stop-frames 1 --set num_workers=1,2", "--num-workers: does not change what a run"),
        ("--stop-frames 1 --seed 3", "--seed: name the seeds of a sweep with --seeds"),
        ("--stop-frames 1 --seeds 3-1", "--seeds: '3-1' is not a range"),
        ("--stop-minutes 1", "--stop-minutes: what a trial learns in a minute depends"),
        ("--stop-frames 1 --run-dir s3://a/b", "--run-dir: s3://a/b is a URI; a sweep needs"),
        ("--resume s3://a/b", "--run-dir: s3://a/b is a URI; a sweep needs a folder"),
        ("--resume none", "none holds no sweep"),
        ("--stop-frames 1 --run-dir sweep", "--run-dir: sweep holds a sweep already; --resume"),
        ("--stop-frames 1 --run-dir full", "--run-dir: full is not empty: it has file"),
        ("--stop-frames 1 --halving 1", "--halving: 1 is not a whole number from 2 to 100"),
        ("--stop-episodes 1 --halving 3", "--halving: compares trials at shares of --stop-frames"),
        ("--stop-frames 1 --trials-at-a-time 0", "--trials-at-a-time: 0 is not a whole number"),
        ("--resume sweep --hidden-units 9", "--hidden-units: the sweep in sweep has 4, not 9"),
        ("--resume sweep --set gamma=0.5", "--resume: the sweep in sweep has the trial seed_0"),
        ("--resume sweep --seeds 5", "--resume: the sweep in sweep has the trial seed_0; name its"),
        (
            "--stop-frames 1 --num-workers 9",
            "--num-workers: a trial has 9 workers, but this machine",
        ),
        ("--stop-frames 1 --num-workers 2 --max-workers 1", "--num-workers: a trial has 2 workers"),
        ("--stop-frames 1 --zzz", "Unrecognized options: --zzz"),
    ],
)
def test_wrong_usage_is_one_line_and_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeper, "usable_cpus", lambda: 8)
    new_sweep(Path("sweep"))
    Path("full").mkdir()
    Path("full/file").touch()
    before = listing(tmp_path)
    assert main(["sweep", *line.split()]) == 2
    output, errors = capsys.readouterr()
    assert errors.startswith(f"distributed-pg: error: {complaint}")
    assert errors.count("\n") == 1
    assert output == ""
    assert listing(tmp_path) == before


def test_a_sweep_with_nothing_left_shows_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "_started", None)  # Ray is not needed
    folder = new_sweep(tmp_path / "sweep")
    for trial in folder.trials:
        play(folder, trial, *[-20] * 10)
    assert main(["sweep", "--resume", str(folder.path)]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert "All 2 trials are done; more --seeds, another --set or a later stop" in output
    assert "-20.0 to -20.0" in output
    assert f"Wrote {folder.path / 'curves.csv'}\n" in output
    assert "sweep --resume" not in output
    assert "report" in output


def test_results_are_shown_even_if_they_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new_sweep(tmp_path / "sweep")
    for trial in folder.trials:
        play(folder, trial, *[-20] * 10)
    (folder.path / "curves.png").mkdir()
    assert main(["sweep", "--resume", str(folder.path), "--quiet"]) == 1
    output, errors = capsys.readouterr()
    assert "-20.0 to -20.0" in output
    assert "curves.csv" in output
    assert "curves.png: cannot be written" in errors or "curves.png cannot be written" in errors
