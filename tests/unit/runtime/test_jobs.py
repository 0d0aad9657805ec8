"""Jobs of a cluster: what needs none of it."""

import os
import re
import shlex
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from distributed_pg.runtime import _ray_private, jobs
from distributed_pg.runtime.jobs import FETCHED, TRAIN, TRAIN_AND_KEEP, failure, is_loopback
from distributed_pg.storage.checkpoint_files import BEST, checkpoint_name

FLAGS = ["--actions", "UP", "DOWN", "--run-dir", "s3://bucket/a b'c"]


def details(status: JobStatus, **more: object) -> JobDetails:
    known = {"type": JobType.SUBMISSION, "submission_id": "one", "entrypoint": "train it"}
    return JobDetails(status=status, **known | more)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "LocalHost", "localhost.", "dash.localhost", "[::1]", "127.1", "127.9.9.9"],
)
def test_loopback_addresses(host: str) -> None:
    assert is_loopback(f"http://{host}:8265")
    assert is_loopback(f"https://user@{host}")


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1:8265",
        "http://[2001:db8::1]:8265",
        "http://dashboard.invalid:8265",
        "http://localhost.example:8265",
        "http://127.0.0.1.example",
        "http://[::1:8265",
        "http://0.0.0.0:8265",
        "http://",
    ],
)
def test_other_addresses(url: str) -> None:
    assert not is_loopback(url)


@pytest.mark.parametrize("entrypoint", [TRAIN, TRAIN_AND_KEEP])
def test_a_jobs_command_has_the_flags_as_they_were_given(entrypoint: str) -> None:
    command = entrypoint.format(job="one", link="link", flags=shlex.join(FLAGS))
    words = shlex.split(command)
    begin = words.index("train") + 1
    assert words[begin : begin + len(FLAGS)] == FLAGS
    assert words[begin + len(FLAGS) :][:2] == ["--address", "auto"]


@pytest.mark.parametrize(
    ("name", "is_fetched"),
    [
        ("config.json", True),
        ("metrics.jsonl", True),
        (f"checkpoints/{checkpoint_name(25)}", True),
        (f"checkpoints/{BEST}", True),
        ("tensorboard/events.out.tfevents.1700000000.host-1", True),
        ("lock", False),
        ("scrape_target.yml", False),
        ("config.json.tmp", False),
        ("checkpoints/.update-00000001.safetensors.tmp", False),
        ("checkpoints/../../secret.safetensors", False),
        ("tensorboard/events/x", False),
        ("/config.json", False),
    ],
)
def test_what_belongs_to_a_run(name: str, is_fetched: bool) -> None:
    assert bool(re.fullmatch(FETCHED, name)) == is_fetched


@pytest.mark.parametrize("status", [s for s in JobStatus if s is not JobStatus.FAILED])
def test_a_job_that_did_not_fail(status: JobStatus) -> None:
    assert failure(details(status, message="Traceback", driver_exit_code=1)) is None


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (
            "a\nValueError: b\n\n",
            1,
            "job one failed (exit code 1); its last output: ValueError: b",
        ),
        ("", -9, "job one failed (exit code -9); its last output: nothing"),
        (None, None, "job one failed; its last output: nothing"),
        (
            "no module\nRunning entrypoint for job one: train it\n",
            1,
            "job one failed (exit code 1); its last output: no module",
        ),
    ],
)
def test_why_a_job_failed(message: str | None, code: int | None, reason: str) -> None:
    assert failure(details(JobStatus.FAILED, message=message, driver_exit_code=code)) == reason


@pytest.mark.parametrize(
    ("given", "sends"),
    [
        ({}, False),
        ({"RAY_AUTH_TOKEN": "x" * 32}, True),
        ({"RAY_AUTH_TOKEN_PATH": "elsewhere"}, True),
        ({"file": "x" * 32}, True),
    ],
)
def test_the_token_is_sent_wherever_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], sends: bool
) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    for name in ("RAY_AUTH_MODE", "no_proxy", "NO_PROXY"):  # so that they are put back
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)
    token = tmp_path / "auth_token"
    monkeypatch.setattr(jobs, "_TOKEN_FILE", token)
    monkeypatch.setattr(_ray_private, "reread_environment", lambda: None)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    for name, value in given.items():
        if name == "file":
            token.write_text(value)
        else:
            monkeypatch.setenv(name, value)
    jobs._set_environment("http://dashboard.invalid")
    assert os.environ.get("RAY_AUTH_MODE") == ("token" if sends else None)
    assert "RAY_ADDRESS" not in os.environ
    assert "NO_PROXY" not in os.environ
    jobs._set_environment("http://127.0.0.1")
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "*"
