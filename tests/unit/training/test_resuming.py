"""What a resumed run keeps of the saved one, and what it says of what is not whole."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import pytest
from records import record_of

from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.cli.main import main, parse_command
from distributed_pg.config import STOP_CONDITIONS, TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.storage.object_store import RemoteRun
from distributed_pg.storage.open_run import open_run
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.storage.uploader import Uploader
from distributed_pg.trainer import resume_config, train
from distributed_pg.training.resuming import repairs

CONFIG = TrainConfig(
    hidden_units=4,
    batch_size=1,
    crop=(35, 39, 0, 160),
    stop_episodes=3,
    stop_minutes=50.0,
    num_workers=7,
    max_workers=9,
    address="auto",
    keep=5,
    disk_errors="warn",
    tensorboard=True,
)
UPDATES = 3


def state() -> TrainingState:
    policy = TrainingState.initial(CONFIG).policy
    versions = {UPDATES - 1: policy, UPDATES: policy}
    rewards = (-1.0,) * UPDATES
    progress = Progress(UPDATES, UPDATES, 900, 90.0, last_rewards=rewards)
    return TrainingState(versions, policy.zeros_like(), progress)


def saved_run(where: str | Path) -> RunDir:
    """A run of three updates that has reached its end."""
    with open_run(replace(CONFIG, run_dir=where)) as run:
        for update in range(1, UPDATES + 1):
            run.append(record_of(update))
        run.save(CONFIG, state(), best=False)
    return run


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a run end where it would need Ray."""

    def refused(*_: object) -> NoReturn:
        raise RunError("no Ray")

    monkeypatch.setattr("distributed_pg.trainer.ray_session", refused)


@pytest.fixture(params=["folder", "uri"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str | Path:
    monkeypatch.chdir(tmp_path)
    where = tmp_path / "run" if request.param == "folder" else f"memory://{tmp_path.name}/run"
    saved_run(where)
    return where


def test_where_a_run_trained_is_not_kept_and_how_it_did_is(place: str | Path) -> None:
    expected = replace(CONFIG, resume=place, num_workers="auto", max_workers=None, address=None)
    assert resume_config(place) == expected
    given = resume_config(place, address="head:6379", num_workers=2)
    assert given == replace(expected, address="head:6379", num_workers=2)
    flags = ["train", "--resume", str(place), "--num-workers", "3"]
    assert parse_command(flags).config == replace(expected, resume=str(place), num_workers=3)


def stops(config: TrainConfig) -> dict[str, Any]:
    return {k: value for k in STOP_CONDITIONS if (value := getattr(config, k)) is not None}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", {"stop_episodes": 3, "stop_minutes": 50.0}),
        ("--keep 2", {"stop_episodes": 3, "stop_minutes": 50.0}),
        ("--stop-minutes 0.3", {"stop_minutes": 0.3}),
        ("--stop-reward -5 --stop-frames=9", {"stop_reward": -5.0, "stop_frames": 9}),
        ("--stop_frames 9", {"stop_frames": 9}),
        ("--stop-episodes None", {}),
    ],
)
def test_stop_conditions_that_are_given_replace_all_that_were_saved(
    tmp_path: Path, flags: str, expected: dict[str, Any]
) -> None:
    run = str(saved_run(tmp_path / "run").path)
    assert stops(parse_command(["train", "--resume", run, *flags.split()]).config) == expected
    if expected and flags.startswith("--stop"):
        assert stops(resume_config(run, **expected)) == expected


def test_from_python_none_lifts_all_that_were_saved(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run").path
    assert stops(resume_config(run)) == {"stop_episodes": 3, "stop_minutes": 50.0}
    assert stops(resume_config(run, stop_reward=None)) == {}


def test_a_flag_without_its_value_is_told_as_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(saved_run(tmp_path / "run").path)
    assert main(["train", "--resume", run, "--stop-frames"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--stop-frames" in line


def test_a_run_with_nothing_left_to_do_says_why_and_stays_as_it_is(
    place: str | Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.read_bytes() for path in Path(str(place)).glob("*.*")}
    caplog.clear()
    result = train(resume_config(place, tensorboard=False), None)
    assert (result.progress.update, result.interrupted) == (UPDATES, False)
    assert result.checkpoint.exists()
    assert caplog.messages == [
        f"Nothing is left to do in {place}: stop_episodes is 3, and it has 3 episodes. Give "
        "another --stop-episodes, or --stop-frames, --stop-minutes, --stop-reward or "
        "--stop-plateau: those that are given replace all saved ones"
    ]
    assert before == {path: path.read_bytes() for path in Path(str(place)).glob("*.*")}


def test_the_condition_that_was_given_is_the_one_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = saved_run(tmp_path / "run").path
    train(resume_config(run, tensorboard=False, stop_minutes=1.0, stop_frames=5), None)
    (line,) = caplog.messages
    assert "stop_frames is 5, and it has 900 frames, stop_minutes is 1.0" in line
    assert "and it has 1.5 minutes of training. Give another --stop-frames, or --stop-min" in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 5}, "seed: the run in memory://.* has 0, not 5"),
        ({"batch_size": 2, "gamma": 0.5}, "batch_size: .*; gamma: "),
    ],
)
def test_a_resume_that_is_refused_does_not_end_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"memory://{tmp_path.name}/run"
    with open_run(replace(CONFIG, run_dir=uri)) as run:
        run.save(CONFIG, state(), best=False)
        pointer = RemoteRun(uri).pointer()
        with pytest.raises(UsageError, match=said):
            train(resume_config(uri, tensorboard=False, **changes), None)
        train(resume_config(uri, tensorboard=False), None)  # nothing is left to do
        assert RemoteRun(uri).pointer() == pointer
        run.save(CONFIG, state(), best=False)
    assert RemoteRun(uri).pointer() is not None
    run.check_ours()


class Resumed:
    """What is told where a run is about to go on."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def __call__(self, run: str | Path, **changes: Any) -> list[str]:
        self._caplog.clear()
        with pytest.raises(RunError, match="no Ray"):
            train(resume_config(run, **{"tensorboard": False, "stop_episodes": 9, **changes}), None)
        return self._caplog.messages


@pytest.fixture
def resumed(caplog: pytest.LogCaptureFixture) -> Resumed:
    return Resumed(caplog)


def cut(metrics: Path) -> None:
    metrics.write_bytes(metrics.read_bytes()[:-10])


def without_the_second(metrics: Path) -> None:
    lines = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(lines[0] + lines[2])


def garbage(metrics: Path) -> None:
    metrics.write_bytes(b"\0" * 1000)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (Path.unlink, "the lines of 3 of 3 updates are missing, from update 1 on"),
        (cut, "the lines of 1 of 3 updates are missing, from update 3 on"),
        (without_the_second, "the lines of 1 of 3 updates are missing, from update 2"),
        (garbage, "the lines of 3 of 3 updates"),
    ],
)
def test_missing_metrics_are_told_once(
    tmp_path: Path, harm: Callable[[Path], None], said: str, resumed: Resumed
) -> None:
    run = saved_run(tmp_path / "run").path
    harm(run / "metrics.jsonl")
    (line,) = resumed(run)
    assert line.startswith(f"{run}/metrics.jsonl: {said}")
    assert line.endswith("curves have a gap there, the run does not")


def test_of_a_run_that_is_whole_nothing_is_told(tmp_path: Path, resumed: Resumed) -> None:
    run = saved_run(tmp_path / "run").path
    with (run / "metrics.jsonl").open("a") as file:  # updates made after the last checkpoint
        file.write('{"update": 4}\n{"upda')
    assert resumed(run, stop_episodes=10, keep=2) == []
    # It was killed before it made a checkpoint; its flags are in config.json.
    assert resumed(run, stop_episodes=10, keep=2) == []


def edit(run: Path, **settings: Any) -> None:
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(values | settings))


def test_settings_edited_by_hand_are_ignored_aloud(tmp_path: Path, resumed: Resumed) -> None:
    run = saved_run(tmp_path / "run").path
    edit(run, keep=50, seed=8, num_workers=99, address="elsewhere:1")
    assert resumed(run) == [
        f"{run}/config.json: keep 50 is ignored, the checkpoint has 5; to change it, give --keep",
        f"{run}/config.json: seed 8 is ignored, the checkpoint has 0; to change it, begin a new "
        "run with --seed",
    ]
    assert json.loads((run / "config.json").read_text())["seed"] == 0
    edit(run, keep=50, stop_frames=5, stop_reward=3.0)
    assert resumed(run, keep=6) == []  # flags are given in the place of all of these


def test_a_stop_condition_edited_by_hand_is_ignored_aloud_where_none_is_given(
    tmp_path: Path,
) -> None:
    run = saved_run(tmp_path / "run")
    edit(run.path, stop_frames=5)
    checkpoint = run.load_newest()[1]
    assert list(repairs(run.path, resume_config(run.path), checkpoint)) == [
        f"{run.path}/config.json: stop_frames 5 is ignored, the checkpoint has None; to change it, "
        "give --stop-frames"
    ]


def test_settings_that_cannot_be_read_are_written_anew(tmp_path: Path, resumed: Resumed) -> None:
    run = saved_run(tmp_path / "run").path
    (run / "config.json").write_text('{"seed": 0')
    (line,) = resumed(run)
    assert line.startswith(f"{run}/config.json: cannot be used (")
    assert line.endswith("; it is rewritten from the checkpoint")
    assert resumed(run) == []


def test_settings_edited_in_a_run_at_a_uri_do_not_count_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: Resumed
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"memory://{tmp_path.name}/run"
    real = Uploader.end

    def edited(uploader: Uploader) -> None:
        edit(uploader._folder, keep=50, hidden_units=5)
        uploader.upload(uploader._folder)
        real(uploader)

    with monkeypatch.context() as patch:
        patch.setattr(Uploader, "end", edited)
        saved_run(uri)
    assert fsspec.filesystem("memory").exists(f"/{tmp_path.name}/run/run.json")
    assert (resume_config(uri).keep, resume_config(uri).hidden_units) == (5, 4)
    ignored = [text for text in resumed(uri) if "is ignored, the checkpoint has" in text]
    assert ["hidden_units 5" in ignored[0], "keep 50" in ignored[1]] == [True, True]


@pytest.mark.parametrize(
    "part",
    ["checkpoints/update-00000003.safetensors", "config.json", "metrics.jsonl", "checkpoints"],
)
def test_a_part_of_a_run_names_the_run(tmp_path: Path, part: str) -> None:
    run = saved_run(tmp_path / "run").path
    with pytest.raises(UsageError, match=rf"{part} is a part of the run in {run}; give {run}$"):
        resume_config(run / part)


def test_a_checkpoint_that_is_in_no_run_holds_none(tmp_path: Path) -> None:
    (tmp_path / "c.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"holds no run \(config.json: Not a directory\)"):
        resume_config(tmp_path / "c.safetensors")


def test_settings_that_are_a_folder_are_no_run(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run").path
    (run / "config.json").unlink()
    (run / "config.json").mkdir()
    with pytest.raises(UsageError, match=r"run holds no run \(config.json: Is a directory\)"):
        resume_config(run)
