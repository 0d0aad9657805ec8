"""A run in a store: one whole state at any time, and no file that the run did not put there."""

import json
from pathlib import Path

import fsspec
import pytest
from stores import CHECKPOINT, FailingStore, fetched, files_of_a_run

from distributed_pg.errors import CheckpointError, RunError, UsageError
from distributed_pg.storage.object_store import FETCH_ATTEMPTS, POINTER, RemoteRun, Stored


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the files of a run."""
    return files_of_a_run(tmp_path / "a-run")


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


def test_what_was_uploaded_and_is_not_used_any_more_is_deleted(run: Path, tmp_path: Path) -> None:
    remote, memory = RemoteRun("memory://garbage"), fsspec.filesystem("memory")
    for content in (b"one", b"two", b"three"):
        (run / CHECKPOINT).write_bytes(content)
        remote.upload(run)
    assert len(memory.find("/garbage/data")) == len(fetched(remote.uri, tmp_path / "fetched")) == 3
    remote.remove()
    assert memory.find("/garbage") == []


def test_a_store_without_credentials_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError("no credentials were found")

    monkeypatch.setattr("fsspec.url_to_fs", fail)
    with pytest.raises(
        RunError, match=r"^gs://b/r: cannot be opened \(LookupError: no credentials were found"
    ):
        RemoteRun("gs://b/r")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("no s3fs"), r"run_dir: s3://b/r needs .*: pip install 'distributed-pg\[s3\]'"),
        (ValueError("Protocol\nnot known"), "run_dir: s3://b/r: Protocol not known"),
    ],
)
def test_a_store_of_no_known_kind_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("fsspec.url_to_fs", fail)
    with pytest.raises(UsageError, match=f"^{said}$"):
        RemoteRun("s3://b/r")


def test_what_another_process_has_uploaded_is_not_removed(run: Path, tmp_path: Path) -> None:
    RemoteRun("memory://others").upload(run)
    RemoteRun("memory://others").remove()
    assert fetched("memory://others", tmp_path / "fetched")[CHECKPOINT] == b"one"


def test_nothing_is_no_run_and_lacks_every_file(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^memory://none holds no run \(run.json: there is none"):
        RemoteRun("memory://none").fetch(tmp_path)
    RemoteRun("memory://none").remove()
    RemoteRun("memory://lacks").upload(run)
    with pytest.raises(RunError, match=r"^memory://lacks: holds no notes\.txt$"):
        RemoteRun("memory://lacks").fetch(tmp_path, lambda _: ["notes.txt"])


@pytest.mark.parametrize("uploads_meanwhile", [1, 2, 3])
def test_a_reader_begins_again_where_the_run_changes_while_it_reads(
    run: Path, tmp_path: Path, uploads_meanwhile: int
) -> None:
    """Each time the reader has read the pointer, the writer uploads, and deletes the old files."""
    uri = f"memory://changes-{uploads_meanwhile}"
    writer = RemoteRun(uri)
    writer.upload(run)
    contents = [f"{number}".encode() for number in range(uploads_meanwhile)]

    class Reader(RemoteRun):
        def _get(self, name: str, files: dict[str, Stored]) -> bytes | CheckpointError:
            if name == CHECKPOINT and contents:
                (run / CHECKPOINT).write_bytes(contents.pop())
                writer.upload(run)
            return super()._get(name, files)

    if uploads_meanwhile < FETCH_ATTEMPTS:
        Reader(uri).fetch(tmp_path / "fetched")
        assert (tmp_path / "fetched" / CHECKPOINT).read_bytes() == b"0"
    else:
        with pytest.raises(RunError, match=r"cannot be read \(it keeps changing\)"):
            Reader(uri).fetch(tmp_path / "fetched")
