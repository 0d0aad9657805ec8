"""A start that fails leaves nothing behind, so that the corrected command works."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from disks import full_disk
from records import record_of
from small_runs import CONFIG, listing, state_after
from stores import stored

from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.storage.open_run import open_run, saved_config
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.storage.uploader import Uploader

NO_WORKERS = RunError("no worker can be started")


def start(
    config: TrainConfig,
    error: BaseException = NO_WORKERS,
    then: Callable[[RunDir], Any] = lambda _: None,
) -> None:
    """What a start does before it needs Ray, which fails then."""
    with open_run(config) as run:
        if config.resume is None:
            run.save(config, state_after(0), best=False)
        then(run)
        raise error


def nothing(folder: Path) -> None:
    """The folder and two above it are not there."""


def an_empty_folder(folder: Path) -> None:
    folder.mkdir(parents=True)


def a_folder_with_files(folder: Path) -> None:
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "tensorboard/of-another").write_text("x")
    (folder / "lock").write_text("of a run that was removed")
    (folder / "notes.txt").write_text("mine")


@pytest.mark.parametrize("before", [nothing, an_empty_folder, a_folder_with_files])
def test_a_start_that_fails_removes_what_it_made(
    tmp_path: Path, before: Callable[[Path], None]
) -> None:
    folder = tmp_path / "deep/er/run"
    before(folder)
    there = [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*"))]
    for _ in range(2):  # the second is the corrected command
        with pytest.raises(RunError, match="no worker can be started"):
            start(replace(CONFIG, run_dir=folder))
        assert [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*"))] == there


def test_the_default_folder_goes_with_runs_if_that_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError):
        start(CONFIG)
    assert listing(tmp_path) == {}
    (tmp_path / "runs/other").mkdir(parents=True)
    with pytest.raises(RunError):
        start(CONFIG)
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs/other"]


def test_a_disk_that_is_full_at_any_stage_leaves_nothing(tmp_path: Path) -> None:
    reached = set()
    for room in (0, 10, 100, 500, 2000, 10_000, 1_000_000):
        with full_disk(room), pytest.raises(RunError) as raised:
            start(replace(CONFIG, run_dir=tmp_path / "new/run"))
        assert listing(tmp_path) == {}
        reached.add(str(raised.value).replace(str(tmp_path), "").split(" ")[0])
    # The settings, the lock, the first checkpoint; and at last there was room for all.
    assert reached == {
        *("run_dir:", "/new/run/checkpoints/update-00000000.safetensors:", "no"),
    }


def test_a_folder_that_cannot_be_locked_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").mkdir()  # the user's
    with pytest.raises(RunError, match="lock: cannot be locked"):
        start(replace(CONFIG, run_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_start_that_is_interrupted_can_be_gone_on_with(
    tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        start(replace(CONFIG, run_dir=tmp_path / "run"), error())
    assert saved_config(tmp_path / "run").hidden_units == CONFIG.hidden_units


def test_a_run_that_has_made_an_update_stays(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        start(replace(CONFIG, run_dir=tmp_path / "run"), then=lambda run: run.append(record_of(1)))
    assert (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("flag", "updates", "error", "complaint"),
    [
        ("resume", 3, RunError, "no worker"),
        ("run_dir", 0, UsageError, "holds a run already"),
    ],
)
def test_a_run_that_is_there_stays_as_it_is(
    tmp_path: Path, flag: str, updates: int, error: type[Exception], complaint: str
) -> None:
    with open_run(replace(CONFIG, run_dir=tmp_path / "run")) as run:
        run.save(CONFIG, state_after(updates), best=False)
    before = listing(tmp_path)
    settings: Any = {flag: tmp_path / "run"}
    with pytest.raises(error, match=complaint):
        start(replace(CONFIG, **settings))
    assert listing(tmp_path) == before


def test_a_start_at_a_uri_that_fails_leaves_nothing_there_or_here(uri: str, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RunError, match="no worker can be started"):
            start(replace(CONFIG, run_dir=uri))
        assert stored(uri) == {}
        assert listing(tmp_path) == {}


def test_a_resume_at_a_uri_that_fails_leaves_the_run_there(uri: str, tmp_path: Path) -> None:
    with open_run(replace(CONFIG, run_dir=uri)) as run:
        run.save(CONFIG, state_after(3), best=False)
    shutil.rmtree(run.path)
    for _ in range(2):
        with pytest.raises(RunError, match="no worker"):
            start(replace(CONFIG, resume=uri), then=lambda run: run.rewind(CONFIG, 3))
        assert list((tmp_path / "runs").iterdir()) == []
        assert saved_config(uri).hidden_units == CONFIG.hidden_units


def test_a_start_that_fails_has_its_uploads_ended(uri: str) -> None:
    uploaders: list[Uploader | None] = []
    with pytest.raises(RunError, match="no worker"):
        start(
            replace(CONFIG, run_dir=uri),
            then=lambda run: uploaders.append(run._uploader),
        )
    (uploader,) = uploaders
    assert uploader is not None
    assert not uploader._thread.is_alive()


def test_a_folder_that_cannot_be_made_leaves_none_above_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be written \(File name too long\)"):
        RunDir.create(replace(CONFIG, run_dir=tmp_path / "deep/er" / ("x" * 300)))
    assert list(tmp_path.iterdir()) == []


def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there has appeared since this process has looked."""
    monkeypatch.setattr(Path, "exists", lambda _: False)


def test_two_that_begin_within_the_same_second_get_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=lambda: datetime(2026, 1, 2, 3, 4, 5))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distributed_pg.storage.fresh_folder.datetime", clock)
    first = RunDir.create(CONFIG)
    unseen(monkeypatch)
    names = [run.path.name for run in (first, RunDir.create(CONFIG), RunDir.create(CONFIG))]
    stem = "2026-01-02_03-04-05_default"
    assert names == [stem, f"{stem}_2", f"{stem}_3"]


def test_of_two_that_begin_in_one_folder_the_second_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunDir.create(replace(CONFIG, run_dir=tmp_path / "run"))
    before = listing(tmp_path)
    unseen(monkeypatch)
    with pytest.raises(UsageError, match="holds a run already"):
        RunDir.create(replace(CONFIG, run_dir=tmp_path / "run"))
    assert listing(tmp_path) == before
