"""scripts/study.py: what it plans, and a small study made for real; and its pictures."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import study
import study_plot
from command import DEADLINE
from study import Question, Run

from distributed_pg.cli.main import parse_command
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


def test_a_run_is_as_long_as_the_longest_question_about_it() -> None:
    lag = {"policy_lag": 0}
    questions = {"a": Question((lag,), 10), "b": Question((lag,), 30), "c": Question((), 20)}
    assert study.planned(questions, [7]) == {Run((), 7): 30, Run((("policy_lag", 0),), 7): 30}
    assert set(study.planned(questions, [7], frames=5).values()) == {5}


def test_the_summary_by_hand() -> None:
    lag, base = Run((("policy_lag", 0),), 0), Run((), 0)
    text = study.summary(
        {"lag": Question(({"policy_lag": 0},), 2 * 10**6)},
        {
            base: [point(10**6, -5.0), point(2 * 10**6, 1.0), point(3 * 10**6, 20.0)],
            Run((), 1): [point(10**6, 0.5), point(2 * 10**6, 2.0)],
            lag: [point(10**6, -21.0)],
            Run((("policy_lag", 0),), 1): [],
        },
    )
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["lag"],
        ["base", "2.0", "1.0", "+1.0", "+2.0"],
        ["policy_lag", "0", "-", "-21.0"],
    ]


def test_minutes_by_workers_by_hand(tmp_path: Path) -> None:
    questions = {
        "luck": Question(({"seed": 1},)),
        "more workers": Question(({"batch_size": 8}, {"batch_size": 9}), workers=8),
    }
    (tmp_path / "study.csv").write_text(
        "settings,seed,frames,mean_100\n"
        "base,0,1000,-1\nbase,0,2000,0\nbase,1,4000,3\n"
        "batch_size 8,0,8000,1\n"
        "batch_size 9,0,1000,1\nbatch_size 9,1,8000,-1\n"
    )
    curves = study_plot.read_curves(tmp_path / "study.csv")
    times = {
        level: study_plot.minutes_to(level, questions, curves, frames_a_minute=10.0)
        for level in (-1.0, 0.0)
    }
    assert times[-1.0][2] == {"base": [50.0, 200.0]}
    assert times[0.0] == {2: {"base": [100.0, 200.0]}, 8: {"batch_size 8": [100.0]}}
    study_plot.draw_workers(times, tmp_path / "workers.png")
    assert (tmp_path / "workers.png").stat().st_size > 10_000


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
        [*command, *more], capture_output=True, text=True, check=True, timeout=DEADLINE
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
    draw = [sys.executable, study_plot.__file__, str(tmp_path), "--worker-speed", "1000"]
    subprocess.run(draw, check=True)
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
