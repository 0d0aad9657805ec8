"""Runs kept at a URI, on a real S3 protocol server."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from learner_runs import run as run_without_ray
from moto.server import ThreadedMotoServer
from records import record_of
from stores import CHECKPOINT, FailingStore, fetched, files_of_a_run

from distributed_pg.algo.state import TrainingState
from distributed_pg.cli.main import main
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.evaluation import evaluate
from distributed_pg.monitoring.log import log_shown_by
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.object_store import RemoteRun, TakenOverError
from distributed_pg.storage.open_run import open_run
from distributed_pg.trainer import resume_config, train

CONFIG = TrainConfig(
    seed=7, batch_size=4, frame_limit=1000, stop_episodes=16, checkpoint_every=1, num_workers=1
)


@pytest.fixture(scope="module")
def store() -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(store: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URI of a new bucket; and an empty folder to be in."""
    _, port = store.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.chdir(tmp_path)
    name = f"bucket-{time.monotonic_ns()}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the files of a run."""
    return files_of_a_run(tmp_path / "a-run")


def keys(uri: str) -> list[str]:
    found = boto3.client("s3").list_objects_v2(Bucket=uri.removeprefix("s3://"))
    return [entry["Key"] for entry in found.get("Contents", [])]


def test_what_is_uploaded_can_be_fetched(bucket: str, run: Path, tmp_path: Path) -> None:
    remote = RemoteRun(bucket)
    assert remote.pointer() is None
    remote.upload(run)
    first = {"config.json": b"{}", "metrics.jsonl": b'{"update": 1}\n', CHECKPOINT: b"one"}
    assert fetched(bucket, tmp_path / "first") == first

    newer = CHECKPOINT.replace("1", "2")
    (run / CHECKPOINT).unlink()
    (run / newer).write_bytes(b"two")
    (run / "metrics.jsonl").write_text('{"update": 1}\n{"update": 2}\n{"upd')
    remote.upload(run)
    second = {
        "config.json": b"{}",
        "metrics.jsonl": b'{"update": 1}\n{"update": 2}\n',
        newer: b"two",
    }
    assert fetched(bucket, tmp_path / "second") == second
    assert len(keys(bucket)) == 1 + len(second)  # and nothing else is left there


def test_a_second_writer_takes_over_and_the_first_one_stops(bucket: str, run: Path) -> None:
    first, second, stranger = RemoteRun(bucket), RemoteRun(bucket), RemoteRun(bucket)
    first.upload(run)
    with pytest.raises(TakenOverError, match="is in use: another process trains there"):
        stranger.upload(run)
    second.take_over()
    second._fs = FailingStore(second._fs, 2)  # twice run.json alone: the files are there
    second.upload(run)
    with pytest.raises(TakenOverError):
        first.upload(run)
    second.upload(run)


@pytest.mark.usefixtures("local_ray")
def test_a_run_at_a_uri_has_the_bits_of_a_run_in_a_folder(bucket: str, tmp_path: Path) -> None:
    whole, *_ = run_without_ray(CONFIG, tmp_path / "whole")
    uri = f"{bucket}/deep/run"
    first = train(replace(CONFIG, run_dir=uri, stop_episodes=8))
    assert first.progress.episodes == 8
    again = resume_config(uri, stop_episodes=16)
    assert again == replace(CONFIG, resume=uri, num_workers="auto")
    second = train(replace(again, num_workers=1))
    assert second.weights_checksum == weights_checksum(whole.policy)
    files = fetched(uri, tmp_path / "fetched")
    lines = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    assert [line["update"] for line in lines] == [1, 2, 3, 4]
    assert "checkpoints/update-00000004.safetensors" in files
    assert evaluate(uri, 2, num_workers=1) == evaluate(tmp_path / "whole", 2, num_workers=1)
    with pytest.raises(UsageError, match=f"^run_dir: {uri} holds a run already; --resume {uri}"):
        train(replace(CONFIG, run_dir=uri))


Change = Callable[[pytest.MonkeyPatch], None]


def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")


def _nothing(_: pytest.MonkeyPatch) -> None:
    pass


@pytest.mark.parametrize(
    ("arguments", "change", "code", "said"),
    [
        ("train --run-dir s3://no-such-bucket/run", _nothing, 1, "bucket does not exist"),
        ("train --run-dir BUCKET/run", _nobody, 1, "cannot be read (Could not connect"),
        ("train --resume BUCKET/run", _nothing, 2, "holds no run (run.json: there is none)"),
        ("evaluate BUCKET/run", _nothing, 2, "holds no run (run.json: there is none)"),
        ("train --run-dir gs://bucket/run", _nothing, 2, "pip install 'distributed-pg[gcs]'"),
        ("train --run-dir nope://run", _nothing, 2, "Protocol not known: nope"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_clear_line(
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    change: Change,
    code: int,
    said: str,
) -> None:
    change(monkeypatch)
    begin = time.monotonic()
    assert main(arguments.replace("BUCKET", bucket).split()) == code
    assert time.monotonic() - begin < 30
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("distributed-pg: error: ")
    assert said in line
    assert not list(Path().glob("runs/*"))


def test_a_store_that_denies_is_one_clear_line(
    bucket: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    assert main(["train", "--run-dir", f"{bucket}/run"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{bucket}/run: cannot be read (" in line


def test_a_store_that_denies_after_a_while_is_told_and_the_run_is_here(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distributed_pg.storage.uploader.END_SECONDS", 3.0)
    lines: list[str] = []

    def deny_later() -> None:
        with open_run(replace(CONFIG, run_dir=f"{bucket}/run")) as run_dir:
            run_dir.save(CONFIG, TrainingState.initial(CONFIG), best=False)
            run_dir.append(record_of(1))
            monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
            run_dir.save(CONFIG, TrainingState.initial(CONFIG), best=False)

    only_here = r"cannot be .* the last checkpoint is in runs/\S+ only"
    with log_shown_by(lines.append), pytest.raises(RunError, match=only_here):
        deny_later()
    (here,) = Path("runs").iterdir()
    kept, failed = lines
    assert kept == f"The run is kept at {bucket}/run, with a local copy in {here}"
    assert failed.startswith(f"{bucket}/run: cannot be ")
    assert failed.endswith("; training goes on, the upload is retried")
    assert (here / "metrics.jsonl").exists()
