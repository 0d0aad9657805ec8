"""scripts/study.py: what it plans, and a small study made for real."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import study

from distributed_pg.cli import parse_command
from distributed_pg.config import preset

FRAMES = 40_000


def point(frames: int, reward: float) -> dict[str, Any]:
    numbers = {"frames": frames, "episodes": 1, "update": 1}
    return numbers | {"running_mean": reward, "mean_100": reward}


def test_every_setting_is_one_that_train_takes() -> None:
    for run in study.planned(study.QUESTIONS, [3]):
        config = parse_command(["train", *run.flags()]).config
        settings = {**study.BASE, **dict(run.settings)}
        assert config == preset(settings.pop("preset", "default"), seed=3, **settings)


def test_the_base_is_planned_once_and_every_folder_is_another() -> None:
    runs = study.planned(study.QUESTIONS, [0, 1])
    assert [run.label for run in runs].count("base") == 2
    assert len({run.folder(Path("runs")) for run in runs}) == len(runs) == len(set(runs))
    assert all(run.label == "base" or run.settings for run in runs)


def test_the_summary_by_hand() -> None:
    lag, base = study.Run((("policy_lag", 0),), 0), study.Run((), 0)
    text = study.summary(
        {
            base: [point(10**6, -5.0), point(2 * 10**6, 1.0)],
            study.Run((), 1): [point(10**6, 0.5), point(2 * 10**6, 2.0)],
            lag: [point(10**6, -21.0)],
        }
    )
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["base", "2", "1.5", "+1.50"],
        ["policy_lag", "0", "1", "-", "-21.00"],
    ]


def study_of_actions(folder: Path, *more: str) -> str:
    command = [sys.executable, study.__file__, "--only", "actions", "--seeds", "5"]
    command += [
        "--frames",
        str(FRAMES),
        "--give-up",
        "-22",
        "--runs",
        str(folder / "runs"),
        "--out",
        str(folder),
    ]
    return subprocess.run(
        [*command, *more], capture_output=True, text=True, check=True, timeout=300
    ).stdout


def test_a_small_study(tmp_path: Path) -> None:
    said = study_of_actions(tmp_path)
    assert "base, seed 5: done after" in said
    assert "actions UP+DOWN+NOOP, seed 5: done after" in said
    with (tmp_path / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == study.COLUMNS
    for label in ("base", "actions UP+DOWN+NOOP"):
        frames = [int(row["frames"]) for row in rows if row["settings"] == label]
        assert frames == sorted(set(frames))
        assert frames[-1] >= FRAMES
    assert (tmp_path / "study.png").stat().st_size > 10_000

    before = (tmp_path / "study.csv").read_bytes()
    assert study_of_actions(tmp_path) == said  # nothing is trained again
    assert (tmp_path / "study.csv").read_bytes() == before
    assert "UP+DOWN+NOOP, seed 5: given up after" in study_of_actions(
        tmp_path, "--frames", str(2 * FRAMES), "--give-up", "21"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seeds", "x"], "--seeds: 'x' is not whole numbers"),
        (["--only", "luck"], "--only: 'luck' is not one of learning rate, "),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    command = [sys.executable, study.__file__, "--out", str(tmp_path), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert complaint in ended.stderr


@pytest.mark.parametrize(
    ("frames", "reward", "over"), [(49, -20.5, False), (50, -20.5, True), (50, -19.5, False)]
)
def test_when_a_run_is_given_up(tmp_path: Path, frames: int, reward: float, over: bool) -> None:
    assert not study.is_over(tmp_path, 100, -20.0)
    (tmp_path / "metrics.jsonl").write_text(f'{{"frames": {frames}, "running_mean": {reward}}}\n')
    assert study.is_over(tmp_path, 100, -20.0) == over
