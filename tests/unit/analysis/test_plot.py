"""Learning curves and milestones."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import assert_refused
from matplotlib.figure import Figure
from PIL import Image
from records import record_of
from sweeps import make_run, make_sweep

from distributed_pg.analysis.learning_curves import (
    By,
    Curve,
    Group,
    group_curves,
    load_curve,
    load_curves,
    repeated,
)
from distributed_pg.analysis.milestones import milestones
from distributed_pg.analysis.plot import curves_figure, plot
from distributed_pg.cli.main import main
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.presets import preset
from distributed_pg.storage.metrics import UpdateRecord
from distributed_pg.storage.object_store import RemoteRun
from distributed_pg.storage.run_dir import RunDir

MEANS = [-21.0, -15.0, -14.9, -16.0, -10.0, 2.0, 5.5]


def record(update: int, running_mean: float, batch_size: int = 4) -> UpdateRecord:
    """An update that took six seconds and 1000 frames an episode."""
    return record_of(
        update,
        episodes=batch_size * update,
        frames=1000 * batch_size * update,
        wall_seconds=6.0 * update,
        rewards=[running_mean - 1, running_mean + 1] * (batch_size // 2),
        running_mean=running_mean,
        mean_100=running_mean,
        best_reward=running_mean + 1,
    )


def run_folder(path: Path, means: list[float], config: TrainConfig | None = None) -> Path:
    """A run that was trained until its running mean had these values."""
    config = replace(config or TrainConfig(batch_size=4), run_dir=path)
    run_dir = RunDir.create(config)
    for update, mean in enumerate(means, 1):
        run_dir.append(record(update, mean, config.batch_size))
    return path


def curve(
    episodes: list[int],
    running_mean: list[float],
    config: TrainConfig | None = None,
    name: str = "run",
) -> Curve:
    x, y = np.array(episodes, float), np.array(running_mean, float)
    return Curve(name, config, [], x, x / 40, x * 1000, y, y)


def test_milestones_are_the_first_updates_that_reach_a_level(tmp_path: Path) -> None:
    found = milestones(load_curve(str(run_folder(tmp_path / "run", MEANS))))
    assert [(one.name, one.episodes, round(one.minutes, 9), one.frames) for one in found] == [
        ("-15", 8, 0.2, 8000),
        ("-10", 20, 0.5, 20000),
        ("0", 24, 0.6, 24000),
        ("+5", 28, 0.7, 28000),
    ]


def test_groups_differ_in_what_a_run_computes_and_not_in_the_seed() -> None:
    slow = preset("karpathy", batch_size=4)
    configs = {
        "a": replace(slow, preset="default", batch_size=10),
        "b": replace(slow, policy_lag=1),
        # The same by another name, and on other machines.
        "c": preset("karpathy", seed=1, num_workers=3, stop_episodes=100, keep=1),
        "d": replace(slow, policy_lag=1, seed=4),
        "e": slow,
    }
    curves = [curve([4], [-21], config, name) for name, config in configs.items()]
    curves.append(curve([4], [-21], None, "notes"))
    groups = group_curves(curves)
    assert {group.label: [curve.name for curve in group.curves] for group in groups} == {
        "batch_size 10, policy_lag 0": ["a", "c"],
        "batch_size 4, policy_lag 1": ["b", "d"],
        "batch_size 4, policy_lag 0": ["e"],
        "notes": ["notes"],
    }
    named = group_curves(curves, ("one", "two", "three", "four"))
    assert [group.label for group in named] == ["one", "two", "three", "four"]
    with pytest.raises(
        UsageError, match="label: 1 given, 4 needed, one per group of runs: a c; b d"
    ):
        group_curves(curves, ("one",))


def test_runs_that_do_not_differ_are_labelled_by_name_or_number() -> None:
    one, other = curve([4], [-21], TrainConfig()), curve([4], [-21], TrainConfig(seed=1))
    assert group_curves([one])[0].label == "run"
    assert group_curves([one, other])[0].label == "2 runs"
    assert repeated(group_curves([one, other])) == []
    assert repeated(group_curves([one, other, one])) == [("run", "run")]


def test_the_mean_of_a_group_is_taken_where_all_its_runs_are() -> None:
    group = Group("", [curve([4, 8, 12], [-20, -16, -12]), curve([2, 10], [-18, -10])])
    x, mean, low, high = group.mean("episodes")
    assert x.tolist() == [4, 8, 10]
    assert mean.tolist() == [-18, -14, -12]
    assert low.tolist() == [-20, -16, -14]
    assert high.tolist() == [-16, -12, -10]
    assert group.mean("frames")[0].tolist() == [4000, 8000, 10000]


def test_runs_without_common_frames_have_no_mean_and_are_drawn() -> None:
    group = Group("", [curve([4], [-20]), curve([6], [-18])])
    assert [array.tolist() for array in group.mean("episodes")] == [[], [], [], []]
    (axis,) = curves_figure([group], ("episodes",)).axes
    drawn = [np.asarray(line.get_xydata()).tolist() for line in axis.lines]
    assert [[4, -20]] in drawn
    assert [[6, -18]] in drawn


def test_a_single_run_is_drawn_with_its_milestones() -> None:
    figure = curves_figure(group_curves([curve([4, 8, 12], [-21, -12, 1])]), ("minutes", "frames"))
    minutes, frames = figure.axes
    assert [minutes.get_xlabel(), frames.get_xlabel()] == ["minutes", "emulated frames"]
    assert [text.get_text() for text in minutes.texts] == ["0.2", "0.3"]
    assert [text.get_text() for text in frames.texts] == ["8.0k", "12.0k"]
    rings = [np.ravel(line.get_xydata()) for line in frames.lines if line.get_marker() == "o"]
    assert np.array_equal(rings, [[8000, -12], [12000, 1]])  # -10 and 0 at once


def test_groups_are_drawn_with_each_run_their_mean_and_its_spread() -> None:
    lag = [
        TrainConfig(seed=seed, batch_size=4, policy_lag=lag) for lag in (1, 0) for seed in (0, 1)
    ]
    curves = [curve([4, 8], [-20, -20 + n], config) for n, config in enumerate(lag[:3])]
    figure = curves_figure(group_curves(curves), ("episodes",), "Lag")
    (axis,) = figure.axes
    lines = {tuple(np.asarray(line.get_ydata())): line for line in axis.lines}
    assert {(-20, -20), (-20, -19), (-20, -18), (-20, -19.5)} < lines.keys()
    mean, single, other = (lines[-20, end] for end in (-19.5, -19, -18))
    assert mean.get_linewidth() > 2 * single.get_linewidth()
    assert mean.get_color() == single.get_color() != other.get_color()
    assert mean.get_linestyle() != other.get_linestyle()  # or they were the same in grey
    (band,) = axis.collections
    assert np.array_equal(band.get_datalim(axis.transData).extents, [4, -20, 8, -19])
    assert _legend(figure)[:2] == ["policy_lag 1 (2 runs)", "policy_lag 0"]
    assert "strong line: interquartile mean; band: 95% interval" in _legend(figure)


@pytest.mark.parametrize("length", [5, 31, 60, 300])
@pytest.mark.parametrize("by", [("frames",), ("episodes", "minutes", "frames")])
def test_the_legend_fits_the_picture(length: int, by: tuple[By, ...]) -> None:
    label = ("seeds " * 60)[:length]
    curves = [curve([4, 8], [-20, -20], TrainConfig(seed=seed)) for seed in (0, 1)]
    figure = curves_figure([Group(label, curves)], by)
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= legend.y0 < legend.y1 <= figure.axes[0].bbox.y0
    shown = " ".join(_legend(figure)[0].split())
    assert shown == f"{' '.join(label.split())} (2 runs)"


def test_the_same_runs_give_the_same_file(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", MEANS)
    for suffix, begin in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        files = [tmp_path / f"{name}{suffix}" for name in "ab"]
        for file in files:
            assert main(["plot", str(run), "--out", str(file)]) == 0
        assert files[0].read_bytes().startswith(begin)
        assert files[0].read_bytes() == files[1].read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 1600


def test_the_command_prints_the_milestones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a folder, of a file in one, of a file that stands alone and of a URI."""
    run = run_folder(tmp_path / "lag1", MEANS)
    (tmp_path / "other.jsonl").write_bytes((run / "metrics.jsonl").read_bytes())
    uri = "memory://plots/uploaded"
    RemoteRun(uri).upload(
        run_folder(tmp_path / "here", [*MEANS, 10.0], TrainConfig(seed=1, batch_size=4))
    )
    places = [str(run), str(run), str(run / "metrics.jsonl"), str(tmp_path / "other.jsonl"), uri]
    assert main(["plot", *places, "--out", str(tmp_path / "a.png")]) == 0
    printed = capsys.readouterr()
    told = "lag1 and lag1 have the same settings and seed; the mean counts both\n"
    assert printed.err == told
    lines = [line.split() for line in printed.out.splitlines()]
    assert lines[0] == ["running", "mean", "-15", "-10", "0", "+5", "+10", "+15"]
    usual = ["episodes", "8", "20", "24", "28"]
    assert lines[1::2] == [
        ["lag1", *usual, "-", "-"],
        ["lag1", *usual, "-", "-"],
        ["lag1", *usual, "-", "-"],
        ["other", *usual, "-", "-"],
        ["uploaded", *usual, "32", "-"],
        ["Wrote", str(tmp_path / "a.png")],
    ]
    # Three runs have the same settings; of the others, these are unknown or differ.
    assert lines[2] == ["3", "runs", "minutes", "0.2", "0.5", "0.6", "0.7", "-", "-"]


def test_a_sweep_stands_for_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Together with a run of the same settings, and one of others."""
    base = TrainConfig(hidden_units=4, batch_size=4, stop_episodes=100)
    sweep = make_sweep(tmp_path / "sweep", base, (0, 1), policy_lag=(0, 1))
    for trial, end in zip(sweep.trials, (1.0, -21.0, 16.0), strict=False):  # one has not begun
        make_run(sweep, trial, [-21.0, end])
    names = [curve.name for curve in load_curves(str(sweep.path))]
    assert names == [f"sweep/policy_lag_{name}" for name in ("0-seed_0", "1-seed_0", "0-seed_1")]
    same = run_folder(tmp_path / "same", [*[-21.0] * 9, 8.0], replace(base, seed=7, policy_lag=0))
    other = run_folder(tmp_path / "other", [-21.0, -15.0], replace(base, policy_lag=3))
    places = [str(place) for place in (sweep.path, same, other)]
    assert main(["plot", *places, "--out", str(tmp_path / "a.png")]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = [line.split() for line in printed.out.splitlines()]
    # Of three seeds none is left out of the interquartile mean: (1 + 16 + 8) / 3.
    assert lines[1][:5] == ["policy_lag", "0", "3", "0.0M", "+8.3"]
    assert lines[2][:5] == ["policy_lag", "1", "1", "0.0M", "-21.0"]
    assert lines[3][:2] == ["running", "mean"]
    assert [line[0] for line in lines[4:]] == ["same", "policy_lag", "other", "policy_lag", "Wrote"]
    (axis,) = plot(sweep.path, same).axes
    drawn = {tuple(np.asarray(line.get_ydata())) for line in axis.lines}
    assert {(-21, 1), (-21, 16), (*[-21] * 9, 8), (-21, -21)} < drawn


def test_a_sweep_that_cannot_be_plotted_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = TrainConfig(hidden_units=4, batch_size=4, stop_episodes=100)
    sweep = make_sweep(tmp_path / "sweep", base, (0, 1))
    command = ["plot", str(sweep.path), "--out", str(tmp_path / "a.png")]
    assert main(command) == 1
    assert "sweep: no trial of this sweep has made an update yet" in capsys.readouterr().err
    make_run(sweep, sweep.trials[0], [-21.0])
    metrics = sweep.run_of(sweep.trials[0]) / "metrics.jsonl"
    whole = metrics.read_text()
    for text, complaint in (
        (f"{whole}not json\n", "damaged"),
        (whole.replace("mean_100", "mean"), "mean_100 is not a number in every line"),
    ):
        metrics.write_text(text)
        assert main(command) == 1
        printed = capsys.readouterr().err
        assert len(printed.splitlines()) == 1
        assert f"{metrics}: " in printed
        assert complaint in printed
    assert not (tmp_path / "a.png").exists()


GOOD = json.dumps(
    {"episodes": 4, "frames": 1, "wall_seconds": 1, "running_mean": 0, "rewards": [0]}
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "contains no updates"),
        (GOOD, "contains no updates"),  # half a line
        ("not json\n", r"not a run's metrics, or damaged \(Expecting value"),
        ("\xff\n", r"not a run's metrics, or damaged"),
        ("[" * 100_000 + "\n", r"not a run's metrics, or damaged"),
        (f"{GOOD}\n[4]\n", "line 2: not a JSON object"),
        (GOOD.replace("frames", "frame") + "\n", "line 1: frames is not a number"),
        (GOOD.replace('mean": 0', 'mean": NaN') + "\n", "line 1: running_mean is not a number"),
        (GOOD.replace("4", "true") + "\n", "line 1: episodes is not a number"),
        (GOOD.replace("[0]", "[]") + "\n", "line 1: rewards is not a list of numbers"),
        (f"{GOOD}\n{GOOD}\n", "line 2: episodes is not greater than in the line before"),
    ],
)
def test_damaged_metrics_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=f"^{path}: {complaint}"):
        load_curve(str(path))


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    config = run_folder(tmp_path / "run", MEANS) / "config.json"
    for text in ("", "[]", '{"seed": "x"}'):
        config.write_text(text)
        with pytest.raises(RunError, match=f"^{config}: cannot be used"):
            load_curve(str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ("--out a.png", 2, "plot: name at least one run, or --weights CHECKPOINT"),
        ("x", 2, "--out PATH"),
        ("x --out a.gif", 2, "--out: a.gif does not end in one of .png, .svg, .pdf"),
        ("nowhere --out a.png", 2, "nowhere: No such file or directory"),
        (". --out a.png", 2, "holds no run"),
        ("x --weights y --out a.png", 2, "--weights: goes without runs"),
        ("--weights nowhere --out a.png", 2, "nowhere: No such file or directory"),
        ("--weights run/metrics.jsonl --out a.png", 1, "metrics.jsonl: not a distributed_pg"),
        ("--weights x --units 0 --out a.png", 2, "units: 0 is not a whole number from 1"),
        ("x --by episodes episodes --out a.png", 2, "--by: name one or more of"),
        ("x --by weeks --out a.png", 2, "weeks"),
        (
            "run --label a b --out a.png",
            2,
            "--label: 2 given, 1 needed, one per group of runs: run",
        ),
        ("run --out none/a.png", 1, r"--out: none/a.png cannot be written \(No such file"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "run", MEANS)
    assert_refused(capsys, "plot", *arguments.split(), code=code, pattern=complaint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]
