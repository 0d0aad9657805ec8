"""What ``train --resume auto`` takes from its flags, and what from the run that it finds."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from small_runs import listing, state_after

from distributed_pg.cli.main import main, parse_command
from distributed_pg.cli.train import settled
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.presets import preset
from distributed_pg.storage.open_run import open_run
from distributed_pg.storage.warm_start import begin
from distributed_pg.trainer import train

FLAGS = "--hidden-units 4 --crop 35 39 0 160 --tensorboard --no-warm-up --stop-episodes 30"
GIVEN: dict[str, Any] = {
    "hidden_units": 4,
    "crop": (35, 39, 0, 160),
    "tensorboard": True,
    "warm_up": False,
    "stop_episodes": 30,
}
SHAPED: dict[str, Any] = {"shape_for": 8, "batch_size": 1, "policy_lag": 4}
"""Chosen for the workers of another machine."""


@pytest.fixture(params=["folder", "uri"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return "runs/a" if request.param == "folder" else f"memory://{tmp_path.name}/run"


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a run end where it would need Ray."""

    def refused(*_: object) -> NoReturn:
        raise RunError("no Ray")

    monkeypatch.setattr("distributed_pg.trainer.ray_session", refused)


def run_in(place: str, **changes: Any) -> TrainConfig:
    config = preset("default", **{**GIVEN, **SHAPED, **changes})
    with open_run(replace(config, run_dir=place)) as run:
        run.save(config, state_after(0), best=False)
    return config


def found(place: str, flags: str = FLAGS) -> TrainConfig:
    line = ["train", "--run-dir", place, "--resume", "auto", *flags.split()]
    return settled(parse_command(line))


def test_where_there_is_no_run_it_is_a_new_one(place: str) -> None:
    assert found(place) == preset("default", **GIVEN, run_dir=place, resume="auto")


@pytest.mark.parametrize("flags", [FLAGS, "", "--batch-size 1", "--shape_for=8 --preset=default"])
def test_the_same_command_or_a_part_of_it_goes_on_with_the_saved_settings(
    place: str, flags: str
) -> None:
    saved = run_in(place)
    assert found(place, flags) == replace(saved, resume=place)


def test_a_folder_may_be_called_auto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved = run_in("auto")
    with open_run(found("auto")) as run:
        assert run.load_newest()[1].config == saved


def test_what_may_change_changes(place: str) -> None:
    saved = run_in(place, keep=5)
    changed = replace(saved, resume=place, stop_episodes=None, stop_frames=9, num_workers=3)
    assert found(place, "--stop-frames 9 --num-workers 3") == changed


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--learning-rate 0.5", "--learning-rate: the run in {} has 0.003, not 0.5"),
        ("--seed 3 --gamma 0.5", "--seed: the run in {} has 0, not 3; gamma: the run in {} has"),
        ("--preset karpathy", "--preset: the run in {} has default, not karpathy"),
        ("--shape-for 9", "--shape-for: the run in {} has 8, not 9"),
        ("--init-from pretrained", "--init-from: the run in {} has None, not pretrained"),
    ],
)
def test_any_other_change_is_refused(
    place: str, tmp_path: Path, flags: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(place)
    before = listing(tmp_path)
    assert main(["train", "--quiet", "--run-dir", place, "--resume", "auto", *flags.split()]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"distributed-pg: error: {complaint.format(place, place)}")
    assert listing(tmp_path).keys() - before.keys() <= {str(tmp_path / "runs/a/lock")}


def test_from_python_the_config_is_the_whole_run(tmp_path: Path) -> None:
    config = preset("default", **GIVEN, run_dir=tmp_path / "run", resume="auto", stop_frames=1)
    with pytest.raises(RunError, match="no Ray"):
        train(replace(config, tensorboard=False), None)
    assert not (tmp_path / "run").exists()
    saved = run_in(str(tmp_path / "run"), batch_size=1, policy_lag=1, shape_for=None)
    again = replace(config, tensorboard=False)
    assert again.changed_settings(saved) == []
    with pytest.raises(RunError, match="no Ray"):
        train(again, None)
    with pytest.raises(UsageError, match=f"^gamma: the run in {tmp_path}/run has 0.99, not 0.5$"):
        train(replace(again, gamma=0.5), None)
    assert (tmp_path / "run/checkpoints/update-00000000.safetensors").exists()


def test_a_warm_run_goes_on_without_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    run_in("a")
    warm = replace(
        preset("default", **GIVEN), tensorboard=False, init_from="a", run_dir="b", resume="auto"
    )
    config, state = begin(warm)
    with open_run(config) as run:
        run.save(config, state, best=False)
    (tmp_path / "a").rename(tmp_path / "gone")
    with pytest.raises(RunError, match="no Ray"):
        train(warm, None)
    other = replace(warm, init_checksum="0" * 16)
    wrong = f"^init_checksum: the run in b has {config.init_checksum}, not {'0' * 16}$"
    with pytest.raises(UsageError, match=wrong):
        train(other, None)
    caplog.clear()
    assert found("b", f"{FLAGS} --init-from a").init_checksum == config.init_checksum
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("train --resume auto", "--resume: auto needs a run_dir; a folder of that name is ./auto"),
        (
            "train --init-from none --run-dir r",
            "--init-from: none: No such file or directory; give a checkpoint, a .safetensors "
            "export, a run's folder or URI, or pretrained",
        ),
        (
            "train --init-from pretrained --hidden-units 20 --run-dir r",
            "--init-from: pretrained does not fit: hidden_units is 200 there and 20 here",
        ),
        (
            "train --init-from pretrained --init-checksum 0123456789abcdef",
            "--init-checksum: 0123456789abcdef is wanted, but pretrained has 8b11e2f6574d9d5d now",
        ),
        (
            "sweep --resume auto --run-dir s --stop-frames 9",
            "--resume: auto is for train; name the folder of the sweep",
        ),
        (
            "sweep --init-from none --run-dir s --stop-frames 9",
            "--init-from: none: No such file or directory; give a checkpoint, a .safetensors "
            "export, a run's folder or URI, or pretrained",
        ),
        (
            "sweep --init-from pretrained --set hidden_units=200,20 --run-dir s --stop-frames 9",
            "--init-from: pretrained does not fit: hidden_units is 200 there and 20 here",
        ),
        (
            "submit --init-from runs/a",
            "--init-from: runs/a is on this machine, where the cluster cannot reach it; give a URI "
            "or pretrained",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_leaves_nothing(
    line: str,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    quiet = [] if line.startswith("submit") else ["--quiet"]
    assert main([*line.split(), *quiet]) == 2
    lines = [text for text in capsys.readouterr().err.splitlines() if "Settings for" not in text]
    assert lines == [f"distributed-pg: error: {complaint}"]
    assert listing(tmp_path) == {}


def test_a_job_may_go_on_by_itself() -> None:
    flags = ["--run-dir", "s3://bucket/run", "--resume", "auto", "--init-from", "s3://bucket/a"]
    assert parse_command(["submit", *flags]).given == tuple(flags)
