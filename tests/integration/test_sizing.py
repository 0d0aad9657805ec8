"""A new run is shaped for the workers it will have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import assert_refused

from distributed_pg.cli.main import main
from distributed_pg.cli.train import defaults as train_defaults
from distributed_pg.config import TrainConfig
from distributed_pg.presets import preset
from distributed_pg.runtime import sizing
from distributed_pg.shapes import SHAPES

SHORT = ["--frame-limit", "400", "--hidden-units", "8", "--stop-episodes", "4", "--num-workers=1"]


def config_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "config.json").read_text()))


@pytest.mark.usefixtures("local_ray")
def test_the_choice_is_made_once_said_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--run-dir", "run", "--shape-for", "16", *SHORT]) == 0
    assert "Settings for 16 workers: --batch-size 4 --policy-lag 4;" in capsys.readouterr().out
    config = config_of(tmp_path / "run")
    assert config["policy_lag"] == SHAPES[16]["policy_lag"]
    assert config["shape_for"] == 16
    resume = ["train", "--resume", "run", "--stop-episodes", "8", "--num-workers", "1"]
    assert main(resume) == 0
    assert "Settings for" not in capsys.readouterr().out
    assert config_of(tmp_path / "run")["policy_lag"] == SHAPES[16]["policy_lag"]


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ("--resume run --shape-for 8", "--shape-for: a resumed run keeps its settings"),
        ("--preset karpathy --shape-for 8", "--shape-for: the preset karpathy has fixed settings"),
        ("--shape-for 0", "--shape-for: 0 is not a whole number from 1 to 100000"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    pattern: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = f"^distributed-pg: error: {re.escape(pattern)}"
    assert_refused(capsys, "train", *arguments.split(), code=2, pattern=line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "cpus", "workers"),
    [
        ({}, 16, 16),
        ({"max_workers": 8}, 16, 8),
        ({"num_workers": 5}, 16, 5),
        ({"shape_for": 64}, 2, 64),
        ({"address": "auto", "max_workers": 64}, 0, 64),
        ({"address": "auto"}, 30, 30),
        ({"address": "auto"}, 0, 1),
    ],
)
def test_the_number_of_workers_it_is_shaped_for(
    settings: dict[str, Any], cpus: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(sizing, "check_cluster_answers", lambda _: cpus)
    plain = {name: value for name, value in settings.items() if name != "shape_for"}
    config = sizing.shaped_config(
        TrainConfig(**settings),
        (),
    )
    assert config.shape_for == workers
    assert config == preset("default", **plain, shape_for=workers)


def test_given_flags_stay(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    monkeypatch.setattr(sizing, "usable_cpus", lambda: 64)
    args = train_defaults(["train", "--batch-size", "7"])
    assert args.pinned == ("batch_size",)
    config = sizing.shaped_config(preset("default", batch_size=7), args.pinned)
    assert (config.batch_size, config.policy_lag) == (7, SHAPES[64]["policy_lag"])
    assert told == [
        "Settings for 64 workers: --policy-lag 5; --shape-for 2 has those of the preset"
    ]


def test_more_workers_than_help_are_told_of_sweeps(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setattr(sizing, "usable_cpus", lambda: 256)
    sizing.shaped_config(preset("default"), ())
    assert told[-1].startswith("256 workers: one run uses 64 of them at most; distributed-pg sweep")
