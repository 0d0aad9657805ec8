"""The table and the CSV file of a sweep."""

import csv
import io
from pathlib import Path

import pytest
from disks import full_disk
from rich.console import Console
from sweep_folders import new_sweep, play

from distributed_pg.analysis.learning_curves import Group
from distributed_pg.analysis.sweep_results import results_table, sweep_groups, write_csv
from distributed_pg.errors import RunError
from distributed_pg.sweep.folder import SweepFolder


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Four runs of two settings, of which one reaches +10, and a trial that has not begun."""
    folder = new_sweep(tmp_path / "sweep", seeds=3, gamma=(0.9, 0.99))
    curves = ([-20, -10], [-5, 12, 9], [-21, -15], [1, 2, 3], [-21, -20])
    for trial, means in zip(folder.trials, curves, strict=False):
        play(folder, trial, *means)
    return folder


def printed(groups: list[Group], width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(results_table(groups))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_groups_are_the_seeds_of_each_setting(folder: SweepFolder) -> None:
    groups = sweep_groups(folder)
    assert [(g.label, [c.name for c in g.curves]) for g in groups] == [
        ("gamma 0.9", ["gamma_0.9-seed_0", "gamma_0.9-seed_1", "gamma_0.9-seed_2"]),
        ("gamma 0.99", ["gamma_0.99-seed_0", "gamma_0.99-seed_1"]),
    ]


def test_the_table_begins_with_the_best_settings(folder: SweepFolder) -> None:
    assert printed(sweep_groups(folder)) == [
        "settings seeds frames last 100 95% interval to 0 to +10 to +15",
        "gamma 0.99 2 0.0M +6.0 +3.0 to +9.0 0.0M - 1/2 -",
        "gamma 0.9 3 0.0M -15.0 -20.0 to -10.0 - - -",
    ]


def test_the_median_needs_half_of_the_seeds(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep", seeds=3)
    for trial, means in zip(folder.trials, ([1], [-1, 1], [-1, -1]), strict=True):
        play(folder, trial, *means)
    groups = sweep_groups(folder)
    for group in groups:
        for curve in group.curves:
            curve.frames[:] *= 1e6 / 10
    assert printed(groups)[1].startswith("default 3 1.0M")
    assert "2.0M 2/3 - -" in printed(groups)[1]


def test_the_table_loses_no_column_on_a_narrow_terminal(folder: SweepFolder) -> None:
    assert "+15" in " ".join(printed(sweep_groups(folder), width=80))


def test_a_damaged_run_is_left_out(folder: SweepFolder, caplog: pytest.LogCaptureFixture) -> None:
    path = folder.run_of(folder.trials[0]) / "config.json"
    path.write_text("{}")
    assert [len(group.curves) for group in sweep_groups(folder)] == [2, 2]
    assert "config.json: cannot be used" in caplog.messages[0]
    assert caplog.messages[0].endswith("gamma_0.9-seed_0 is left out")


def test_the_csv_has_each_run(folder: SweepFolder) -> None:
    out = folder.path / "curves.csv"
    write_csv(sweep_groups(folder), out)
    rows = list(csv.DictReader(out.open(newline="")))
    assert len(rows) == 2 + 3 + 2 + 3 + 2
    assert rows[0] == {
        "settings": "gamma 0.9",
        "seed": "0",
        "frames": "10",
        "episodes": "1",
        "updates": "1",
        "minutes": "0.017",
        "running_mean": "-20.000",
        "mean_100": "-20.000",
    }
    assert {row["settings"] for row in rows} == {"gamma 0.9", "gamma 0.99"}
    assert [row["mean_100"] for row in rows if row["settings"] == "gamma 0.99"] == [
        *("-5.000", "12.000", "9.000", "1.000", "2.000", "3.000")
    ]


def test_long_runs_are_thinned(tmp_path: Path) -> None:
    folder = new_sweep(tmp_path / "sweep", seeds=1)
    play(folder, folder.trials[0], *[-20] * 450)
    out = folder.path / "curves.csv"
    write_csv(sweep_groups(folder), out)
    rows = list(csv.DictReader(out.open(newline="")))
    assert len(rows) == 100
    assert [int(row["frames"]) for row in rows[:2]] == [50, 90]
    assert int(rows[-1]["frames"]) == 4500


def test_a_full_disk_is_one_line(folder: SweepFolder) -> None:
    groups = sweep_groups(folder)
    with full_disk(10), pytest.raises(RunError, match=r"curves.csv: cannot be written \(File too"):
        write_csv(groups, folder.path / "curves.csv")
