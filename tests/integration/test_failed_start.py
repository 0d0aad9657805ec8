"""A start that fails leaves nothing behind: between processes, and with Ray."""

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import QUICK, assert_one_line_error, distributed_pg
from small_runs import CONFIG, listing, state_after

from distributed_pg.errors import RunError, UsageError
from distributed_pg.storage.open_run import open_run
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.trainer import resume_config, train


def begin(folder: Path, barrier: Any, results: Any) -> None:
    barrier.wait()
    try:
        with open_run(replace(CONFIG, run_dir=folder)) as run:
            run.save(CONFIG, state_after(0), best=False)
            results.put("began")
            barrier.wait()  # until all have tried
    except (UsageError, RunError) as error:
        results.put(str(error))
        barrier.wait()


def test_of_many_that_begin_in_one_folder_at_once_one_does(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    arguments = (tmp_path / "deep/run", barrier, results)
    processes = [context.Process(target=begin, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    said = sorted(results.get(timeout=10) for _ in processes)
    refused = f"run_dir: {tmp_path}/deep/run holds a run already; --resume {tmp_path}/deep/run con"
    assert said[0] == "began"
    assert all(text.startswith(refused) for text in said[1:])
    assert resume_config(tmp_path / "deep/run").hidden_units == CONFIG.hidden_units


def test_the_corrected_command_works(tmp_path: Path) -> None:
    """An address with a typing error, given to the command itself."""
    (tmp_path / "mine").mkdir()
    typo = ("train", *QUICK, "--run-dir", "mine/run", "--address", "127.0.0.1:1")
    assert_one_line_error(distributed_pg(*typo, cwd=tmp_path), 1, "nobody answers at 127.0.0.1:1")
    assert list((tmp_path / "mine").iterdir()) == []
    assert RunDir.create(replace(CONFIG, run_dir=tmp_path / "mine/run")).path.exists()


@pytest.mark.usefixtures("local_ray")
def test_without_the_game_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_rom(*_: Any, **__: Any) -> None:
        raise RunError("Pong ROM: there is none")

    monkeypatch.setattr("distributed_pg.trainer.RayWorkerPool", no_rom)
    with pytest.raises(RunError, match="Pong ROM"):
        train(replace(CONFIG, run_dir=tmp_path / "run"))
    assert listing(tmp_path) == {}
