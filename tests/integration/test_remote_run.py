"""Runs kept at a URI, on a real S3 protocol server."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer
from records import record_of

from distributed_pg.algo.state import TrainingState
from distributed_pg.cli.main import main
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.evaluation import evaluate
from distributed_pg.storage.object_store import POINTER, RemoteRun, TakenOverError
from distributed_pg.storage.open_run import open_run
from distributed_pg.storage.uploader import NoAnswerError, Uploader
from distributed_pg.trainer import resume_config, train

CONFIG = TrainConfig(
    seed=7, batch_size=4, frame_limit=1000, stop_episodes=16, checkpoint_every=1, num_workers=2
)
CHECKPOINT = "checkpoints/update-00000001.safetensors"


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
    folder = tmp_path / "a-run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"update": 1}\n')
    (folder / CHECKPOINT).write_bytes(b"one")
    (folder / "lock").write_text("process 1")
    return folder


def fetched(uri: str, folder: Path) -> dict[str, bytes]:
    RemoteRun(uri).fetch(folder)
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def keys(uri: str) -> list[str]:
    found = boto3.client("s3").list_objects_v2(Bucket=uri.removeprefix("s3://"))
    return [entry["Key"] for entry in found.get("Contents", [])]


def test_what_is_published_can_be_fetched(bucket: str, run: Path, tmp_path: Path) -> None:
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


class FailingStore:
    """A file system that fails from its n-th writing call on."""

    def __init__(self, fs: Any, calls: int) -> None:
        self._fs = fs
        self._left = calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._fs, name)
        if name not in ("pipe_file", "rm_file"):
            return method

        def called(*arguments: Any) -> Any:
            if self._left == 0:
                raise ConnectionError("gone")
            self._left -= 1
            return method(*arguments)

        return called


def uploads(remote: RemoteRun, run: Path) -> bool:
    try:
        remote.upload(run)
    except RunError:
        return False
    return True


def test_a_reader_finds_one_whole_state_wherever_the_writer_stopped(
    run: Path, tmp_path: Path
) -> None:
    seen = set()
    for calls in range(20):
        uri = f"memory://atomic-{calls}"
        remote = RemoteRun(uri)
        (run / "metrics.jsonl").write_text("1\n")
        (run / CHECKPOINT).write_bytes(b"1")
        remote.upload(run)
        (run / "metrics.jsonl").write_text("1\n2\n")
        (run / CHECKPOINT).write_bytes(b"22")
        remote._fs = FailingStore(remote._fs, calls)
        complete = uploads(remote, run)
        files = fetched(uri, tmp_path / f"{calls}")
        state = files["metrics.jsonl"], files[CHECKPOINT]
        assert state in ((b"1\n", b"1"), (b"1\n2\n", b"22"))
        seen.add((state[1], complete))
        if complete:
            break
        remote._fs = remote._fs._fs
        remote.upload(run)  # the store is back
        assert fetched(uri, tmp_path / f"{calls}-after")[CHECKPOINT] == b"22"
    # It was stopped before and after the new state counted, and once it was not.
    assert seen == {(b"1", False), (b"22", False), (b"22", True)}


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


POINTERS = {
    "no JSON": b"{",
    "a number": b"7",
    "another format": b'{"format": "x", "writer": "w", "files": {}}',
    "no files": b'{"format": "distributed_pg run 1", "writer": "w"}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("text", POINTERS.values(), ids=POINTERS.keys())
def test_a_damaged_pointer_is_refused(text: bytes, run: Path) -> None:
    uri = "memory://damaged"
    RemoteRun(uri).upload(run)
    fsspec.filesystem("memory").pipe_file(f"/damaged/{POINTER}", text)
    with pytest.raises(RunError, match=f"^{uri}: run.json is damaged, or not of a run$"):
        RemoteRun(uri).fetch(run)
    fsspec.filesystem("memory").rm("/damaged", recursive=True)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("../x", "0" * 20 + "-x"),
        ("/etc/x", "0" * 20 + "-x"),
        ("lock", "0" * 20 + "-x"),
        ("checkpoints/../config.json", "0" * 20 + "-x"),
        ("config.json", "../../secret"),
        ("config.json", "0" * 20 + "-../x"),
    ],
)
def test_a_pointer_cannot_lead_elsewhere(name: str, key: str, tmp_path: Path) -> None:
    pointer = {
        "format": "distributed_pg run 1",
        "writer": "w",
        "files": {name: {"key": key, "sha256": "0" * 64}},
    }
    fsspec.filesystem("memory").pipe_file(f"/elsewhere/{POINTER}", json.dumps(pointer).encode())
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        RemoteRun("memory://elsewhere").fetch(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_that_was_altered_is_refused(run: Path, tmp_path: Path) -> None:
    uri = "memory://altered"
    RemoteRun(uri).upload(run)
    memory = fsspec.filesystem("memory")
    (key,) = (path for path in memory.ls("/altered/data", detail=False) if "update" in path)
    memory.pipe_file(key, b"0ne")
    with pytest.raises(RunError, match=f"{CHECKPOINT} is damaged, its checksum does not match"):
        RemoteRun(uri).fetch(tmp_path / "new")
    memory.rm_file(key)
    with pytest.raises(RunError, match="cannot be read"):
        RemoteRun(uri).fetch(tmp_path / "new")


def test_a_store_that_goes_and_comes_back_is_told_once_and_loses_nothing(
    run: Path, tmp_path: Path
) -> None:
    remote = RemoteRun("memory://comes-back")
    whole, broken = remote._fs, FailingStore(remote._fs, 0)
    told: list[str] = []
    first = threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        first.set()

    uploader = Uploader(remote, run, tell)
    uploader.begin()
    remote._fs = broken
    (run / CHECKPOINT).write_bytes(b"newer")
    uploader.changed()
    assert first.wait(30)
    uploader.changed()
    remote._fs = whole
    uploader.end()
    assert fetched(remote.uri, tmp_path / "fetched")[CHECKPOINT] == b"newer"
    assert told == [
        "memory://comes-back: cannot be written (gone); training goes on, and tries again",
        "memory://comes-back: the run is uploaded again",
    ]


def test_a_store_that_stays_away_is_an_error_at_the_end(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distributed_pg.storage.uploader.END_SECONDS", 0.1)
    remote = RemoteRun("memory://stays-away")
    uploader = Uploader(remote, run, lambda _: None)
    uploader.begin()
    remote._fs = FailingStore(remote._fs, 0)
    uploader.changed()
    with pytest.raises(RunError, match=r"cannot be written \(gone\); the last checkpoint is in"):
        uploader.end()


def begin_at(uri: str, message: Callable[[str], None] = lambda _: None) -> None:
    """Begin a run there, and leave it at once."""
    with open_run(replace(CONFIG, run_dir=uri), message) as run_dir:
        run_dir.save(CONFIG, TrainingState.initial(CONFIG), best=False)


def test_a_store_that_is_silent_at_first_gets_no_run_when_it_wakes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("distributed_pg.storage.uploader.BEGIN_SECONDS", 0.1)
    monkeypatch.setattr("distributed_pg.storage.uploader.FIRST_WAIT", 0.1)
    monkeypatch.chdir(tmp_path)
    awake, tried = threading.Event(), threading.Event()
    put = RemoteRun._put

    def put_when_awake(*arguments: Any) -> Any:
        awake.wait()
        return put(*arguments)

    upload = RemoteRun.upload

    def uploaded(remote: RemoteRun, folder: Path) -> None:
        try:
            upload(remote, folder)
        finally:
            tried.set()

    monkeypatch.setattr(RemoteRun, "_put", put_when_awake)
    monkeypatch.setattr(RemoteRun, "upload", uploaded)
    with pytest.raises(NoAnswerError, match="no answer within 0 s"):
        begin_at("memory://silent")
    assert list(tmp_path.iterdir()) == []
    awake.set()
    assert tried.wait(30)
    assert RemoteRun("memory://silent").pointer() is None
    begin_at("memory://silent")  # the same command again


@pytest.mark.usefixtures("local_ray")
def test_a_run_at_a_uri_has_the_bits_of_a_run_in_a_folder(bucket: str, tmp_path: Path) -> None:
    whole = train(replace(CONFIG, run_dir=tmp_path / "whole"))
    uri = f"{bucket}/deep/run"
    first = train(replace(CONFIG, run_dir=uri, stop_episodes=8))
    assert first.progress.episodes == 8
    again = resume_config(uri, stop_episodes=16)
    assert again == replace(CONFIG, resume=uri, num_workers="auto")
    second = train(again)
    assert second.weights_checksum == whole.weights_checksum
    files = fetched(uri, tmp_path / "fetched")
    lines = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    assert [line["update"] for line in lines] == [1, 2, 3, 4]
    assert "checkpoints/update-00000004.safetensors" in files
    assert evaluate(uri, 2, num_workers=2) == evaluate(whole.run_dir, 2, num_workers=2)
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
    told: list[str] = []

    def deny_later() -> None:
        with open_run(replace(CONFIG, run_dir=f"{bucket}/run"), told.append) as run_dir:
            run_dir.save(CONFIG, TrainingState.initial(CONFIG), best=False)
            run_dir.append(record_of(1))
            monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
            run_dir.save(CONFIG, TrainingState.initial(CONFIG), best=False)

    with pytest.raises(RunError, match=r"cannot be .* the last checkpoint is in runs/\S+ only"):
        deny_later()
    (here,) = Path("runs").iterdir()
    assert told[0] == f"The run is kept at {bucket}/run, and meanwhile in {here}"
    assert told[1].startswith(f"{bucket}/run: cannot be ")
    assert told[1].endswith("; training goes on, and tries again")
    assert len(told) == 2
    assert (here / "metrics.jsonl").exists()
