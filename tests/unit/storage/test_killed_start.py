"""``resume`` auto: one command that begins a run, and goes on with it, whatever was killed."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from small_runs import CONFIG, listing, make_update, state_after
from stores import stored

from distributed_pg.algo.state import Progress
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.object_store import RemoteRun
from distributed_pg.storage.open_run import open_run, run_exists
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.storage.run_lock import locked


def auto(where: str | Path) -> TrainConfig:
    return replace(CONFIG, run_dir=where, resume="auto")


def start(where: str | Path) -> RunDir:
    """What the command does until it trains, and ends."""
    with open_run(auto(where)) as run:
        if run.is_new:
            run.save(CONFIG, state_after(0), best=False)
        else:
            run.load_newest()
    return run


def saved(folder: Path) -> tuple[TrainConfig, str, Progress]:
    """What the run in a folder goes on with."""
    checkpoint = RunDir.open(folder).load_newest()[1]
    state = checkpoint.state
    return checkpoint.config, weights_checksum(state.policy), state.progress


class KilledError(BaseException):
    """Not an Exception, so no error is handled: files stay as they are."""


class Killer:
    """Ends the process, so to say, before the n-th change of a file below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self.left = 0
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
        changes |= event == "open" and any(c in "wa+" for c in str(arguments[1]))
        if self.left and changes and str(arguments[0]).startswith(self._folder):
            self.left -= 1
            if self.left == 0:
                raise KilledError

    @contextmanager
    def after(self, changes: int) -> Iterator[None]:
        self.left = changes
        try:
            yield
        finally:
            self.left = 0


def test_a_start_that_is_killed_at_any_change_of_a_file_is_made_up_for(tmp_path: Path) -> None:
    whole = saved(start(tmp_path / "whole").path)
    killer, states = Killer(tmp_path), list[list[str]]()
    for change in range(1, 100):
        folder = tmp_path / f"{change}/deep/run"
        try:
            with killer.after(change):
                start(folder)
        except KilledError:
            states.append(sorted(str(path.relative_to(folder)) for path in folder.rglob("*")))
        else:
            break
        for _ in range(2):
            start(folder)
            assert saved(folder) == whole
    assert 7 < change < 100
    assert [] in states
    assert ["checkpoints", "lock"] in states
    assert [".config.json.tmp", "checkpoints", "lock"] in states
    assert ["checkpoints", "config.json", "lock"] in states


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


LEFT: list[dict[str, str]] = [
    {"lock": ""},
    {"lock": "\nprocess 1 on a host"},
    {"config_json": ""},
    {"config_json": '{\n  "pre'},
    {"config_json": '{\n  "preset": "default",\n  "seed": 0,\n  "ba', "lock": ""},
    {"_config_json_tmp": '{\n "x'},
    {"checkpoints___update-00000000_safetensors_tmp": "x" * 100},
]


@pytest.mark.parametrize("files", LEFT)
def test_half_written_files_of_a_start_are_made_up_for(
    tmp_path: Path, files: dict[str, str]
) -> None:
    write(tmp_path, **files)
    assert not run_exists(tmp_path)
    assert start(tmp_path).is_new
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoints",
        "config.json",
        "lock",
    ]
    assert saved(tmp_path)[0] == CONFIG
    assert not start(tmp_path).is_new


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"notes_txt": "mine"}, "notes.txt"),
        ({"lock": "", "checkpoints__weights_bin": "mine"}, "checkpoints/weights.bin"),
        ({"config_json": '{"model": "mine"}'}, "config.json"),
        ({"config_json": "\n"}, "config.json"),
        ({"metrics_jsonl": '{"update": 1}'}, "metrics.jsonl"),
        ({"sweep_json": "{}"}, "sweep.json"),
        ({"checkpoints": "a file"}, "checkpoints"),
        (
            {"checkpoints__update-00000007_safetensors": "x"},
            "checkpoints/update-00000007.safetensors",
        ),
    ],
)
def test_a_folder_that_holds_something_else_stays_as_it_is(
    tmp_path: Path, files: dict[str, str], named: str
) -> None:
    folder = tmp_path / "folder"
    write(folder, **files)
    before = listing(tmp_path)
    with pytest.raises(UsageError) as raised:
        start(folder)
    assert str(raised.value) == (
        f"run_dir: {folder} holds something else, {named}; resume auto needs a run, or a new or "
        "empty folder to begin one in"
    )
    assert listing(tmp_path) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"^run_dir: .*file cannot be read \(Not a directory\)$"):
        start(tmp_path / "file")


def test_a_run_is_gone_on_with_beside_whatever_else_is_there(tmp_path: Path) -> None:
    make_update(start(tmp_path / "run"), 1)
    write(tmp_path / "run", notes_txt="mine", slurm_out="text")
    before = listing(tmp_path)
    with open_run(auto(tmp_path / "run")) as run:
        assert run.load_newest()[1].state.progress.update == 1
    assert listing(tmp_path).keys() == before.keys()


def test_a_start_that_fails_leaves_nothing_and_one_that_goes_on_leaves_the_run(
    tmp_path: Path,
) -> None:
    def fails(folder: Path) -> None:
        with open_run(auto(folder)) as run:
            if run.is_new:
                run.save(CONFIG, state_after(0), best=False)
            raise RunError("no workers")

    for leftovers in ({}, LEFT[4]):
        write(tmp_path / "deep/run", **leftovers)
        with pytest.raises(RunError, match="no workers"):
            fails(tmp_path / "deep/run")
        assert not (tmp_path / "deep/run/config.json").exists()
        shutil.rmtree(tmp_path / "deep", ignore_errors=True)
    make_update(start(tmp_path / "run"), 1)
    before = listing(tmp_path)
    with pytest.raises(RunError, match="no workers"):
        fails(tmp_path / "run")
    assert listing(tmp_path).keys() == before.keys()


@pytest.mark.parametrize("begun", [False, True])
def test_where_another_process_begins_or_trains_nothing_is_touched(
    tmp_path: Path, begun: bool
) -> None:
    write(tmp_path, **LEFT[4])
    if begun:
        start(tmp_path)
    with locked(tmp_path):
        before = listing(tmp_path)
        with pytest.raises(UsageError, match=f"^{tmp_path} is in use by process "):
            start(tmp_path)
        assert listing(tmp_path) == before


def put(uri: str, name: str, text: bytes = b"mine") -> None:
    fsspec.filesystem("memory").pipe_file(f"{uri.removeprefix('memory:/')}/{name}", text)


def test_at_a_uri_it_begins_once_and_goes_on(uri: str) -> None:
    assert not run_exists(uri)
    assert start(uri).is_new
    assert run_exists(uri)
    assert not start(uri).is_new


def test_data_that_a_killed_start_has_left_at_a_uri_goes(uri: str) -> None:
    start(uri)
    fsspec.filesystem("memory").rm_file(f"{uri.removeprefix('memory:/')}/run.json")
    left = f"data/{'0' * 20}-update-00000000.safetensors"
    put(uri, left)
    assert start(uri).is_new
    files = {name.partition("-")[2] for path in stored(uri) for name in [Path(path).name]}
    assert files == {"", "config.json", "update-00000000.safetensors"}
    assert not any(path.endswith(left) for path in stored(uri))
    assert len(stored(uri)) == 3


@pytest.mark.parametrize("name", ["notes.txt", "data/photo.png", "deep/notes.txt"])
def test_what_is_not_of_a_run_stays_at_a_uri(uri: str, tmp_path: Path, name: str) -> None:
    put(uri, name)
    before = stored(uri)
    named = name.replace("deep/notes.txt", "deep")
    with pytest.raises(UsageError, match=f"^run_dir: {uri} holds something else, {named}; resume"):
        start(uri)
    assert stored(uri) == before
    assert listing(tmp_path) == {}


def test_of_two_that_begin_at_a_uri_the_second_is_refused(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(uri)
    before = stored(uri)
    with monkeypatch.context() as patch:
        look: Callable[..., Any] = RemoteRun.pointer
        answers = iter([None, None])  # as if the other one had not been there yet
        patch.setattr(RemoteRun, "pointer", lambda run: next(answers, look(run)))
        patch.setattr(RemoteRun, "check_is_free", lambda _: None)
        with pytest.raises(RunError, match="is in use: another process trains there"):
            start(uri)
    assert stored(uri) == before
