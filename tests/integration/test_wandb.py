"""What Weights & Biases gets is what metrics.jsonl holds; trouble there does not end a run."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import wandb
from command import QUICK, assert_one_line_error, distributed_pg, metrics, python
from learner_runs import checksums
from records import record_of
from wandb_files import history, records, sessions, settings

from distributed_pg import _extras
from distributed_pg.config import TrainConfig
from distributed_pg.errors import UsageError
from distributed_pg.monitoring.reporter import NullReporter
from distributed_pg.monitoring.scalars import EPISODE_LENGTH, EPISODE_REWARD, SCALARS
from distributed_pg.monitoring.sinks import Sinks
from distributed_pg.monitoring.wandb import PROJECT, WandbSink, check_can_send
from distributed_pg.storage.open_run import saved_config
from distributed_pg.trainer import resume_config, train

CONFIG = TrainConfig(
    batch_size=3, frame_limit=400, hidden_units=8, num_workers=1, checkpoint_every=2, keep=9
)
Rows = dict[int, dict[str, Any]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, without a login, and with wandb offline; the current folder."""
    home = tmp_path / "home"
    home.mkdir()
    for name in os.environ:
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(home)
    wandb.teardown()  # it reads the environment once
    return home


def expected(lines: list[dict[str, Any]]) -> Rows:
    """The rows that metrics.jsonl makes."""
    rows: Rows = {}
    for line in lines:
        first = line["episodes"] - len(line["rewards"]) + 1
        for step, (reward, length) in enumerate(
            zip(line["rewards"], line["lengths"], strict=True), first
        ):
            rows[step] = {EPISODE_REWARD: reward, EPISODE_LENGTH: length}
        found = {tag: line[field] for tag, field in SCALARS.items()}
        rows[line["episodes"]] |= {k: v for k, v in found.items() if v is not None}
    return rows


@pytest.mark.usefixtures("local_ray")
def test_what_is_written_is_what_was_recorded_when_stopped_killed_and_resumed(
    tmp_path: Path, home: Path
) -> None:
    run = tmp_path / "run"
    train(replace(CONFIG, run_dir=run, wandb=True, stop_episodes=9), None)
    lines = metrics(run)
    (first,) = sessions(run)
    assert history(first) == expected(lines)
    about, config = settings(first)
    assert (about.project, about.display_name) == (PROJECT, "run")
    del config["_wandb"]
    saved = saved_config(run)
    assert config == saved.to_json()
    assert saved.wandb_id == about.run_id

    (run / "checkpoints/update-00000003.safetensors").unlink()  # as if killed before it
    result = train(resume_config(run, stop_episodes=12), None)
    assert result.weights_checksum == checksums(replace(CONFIG, stop_episodes=12))[-1]
    _, second = sessions(run)
    assert history(second) == expected(metrics(run)[2:])
    assert settings(second)[0].run_id == about.run_id

    train(resume_config(run, stop_episodes=15, wandb=False), None)
    assert len(sessions(run)) == 2
    # The current folder stays empty but for the log of wandb's own process.
    assert [path.name for path in home.iterdir()] == [".cache"]


def test_nothing_of_the_machine_is_recorded_but_the_settings(tmp_path: Path) -> None:
    config = replace(CONFIG, wandb_id="a1")
    with Sinks({"W&B": lambda: WandbSink(tmp_path, config)}, NullReporter()) as both:
        both.updated(record_of(1))
    (file,) = sessions(tmp_path)
    kinds = {record.WhichOneof("record_type") for record in records(file)}
    assert "history" in kinds
    assert not kinds & {"stats", "output", "output_raw", "artifact"}


LOGIN = "--wandb: not logged in to Weights & Biases; run `wandb login` or set WANDB_API_KEY, or set"
BAD = {
    "not logged in": ({"WANDB_MODE": "online"}, LOGIN),
    "a bad key": ({"WANDB_MODE": "online", "WANDB_API_KEY": "x"}, "--wandb: .*key"),
    "no such mode": ({"WANDB_MODE": "sometimes"}, "--wandb: .*mode"),
}


@pytest.mark.parametrize(("environment", "complaint"), BAD.values(), ids=BAD.keys())
def test_without_a_login_nothing_is_begun(
    tmp_path: Path, home: Path, environment: dict[str, str], complaint: str
) -> None:
    refused = distributed_pg("train", *QUICK, "--wandb", cwd=tmp_path, **environment)
    assert_one_line_error(refused, 2, complaint)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_missing_library_is_told_before_anything_starts(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, run_dir=tmp_path / "run", wandb=True)
    monkeypatch.setattr(_extras, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"^wandb is not .* 'distributed-pg\[wandb\]'"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_its_name_is_not_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_library").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"^no_library is not installed"):
        _extras.need_extra("wandb", "no_library")


def test_without_the_flag_it_is_not_imported() -> None:
    code = "import sys, distributed_pg.trainer; print([m for m in sys.modules if 'wandb' in m])"
    assert python(code) == "[]"


def test_a_run_of_the_process_itself_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    theirs = wandb.init(dir=tmp_path / "theirs", settings=wandb.Settings(silent=True))
    check_can_send()
    ours = WandbSink(tmp_path, replace(CONFIG, wandb_id="a1"))
    ours.write(record_of(1))
    ours.close()
    assert wandb.run is not None
    assert wandb.run is theirs
    theirs.log({"loss": 1.0})
    theirs.finish()
    assert [list(history(file).values()) for file in sessions(tmp_path / "theirs")] == [
        [{"loss": 1.0}]
    ]


def test_a_wandb_that_dies_is_told_once_and_the_run_goes_on(
    tmp_path: Path, told: list[str]
) -> None:
    sink = WandbSink(tmp_path, replace(CONFIG, wandb_id="a1"))
    (service,) = (child for child in psutil.Process().children() if "wandb-core" in child.name())
    with Sinks({"Weights & Biases": lambda: sink}, NullReporter()) as both:
        both.updated(record_of(1))
        service.kill()
        service.wait(10)
        for update in range(2, 200):
            both.updated(record_of(update))
    (line,) = told
    assert line.startswith("Weights & Biases: ")
    assert line.endswith("; the run goes on without it")


def test_a_server_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    begin = time.monotonic()
    with Sinks(
        {"W&B": lambda: WandbSink(tmp_path, replace(CONFIG, wandb_id="a1"))}, NullReporter()
    ):
        pass
    assert time.monotonic() - begin < 20
    assert told == ["W&B: has not finished in time; the run goes on without it"]
