"""Sweeps on real Ray: killed, stopped, resumed and broken, their trials have the bits of runs."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import COMMAND, DEADLINE, assert_one_line_error, distributed_pg, metrics, until
from simulated_pool import SimulatedWorkerPool, play_for_real

from distributed_pg.algo.state import TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.monitoring.reporter import NullReporter
from distributed_pg.storage.open_run import open_run
from distributed_pg.training.learner import Learner

SETTINGS = ["--frame-limit", "2000", "--batch-size", "4", "--hidden-units", "8"]
EPISODES = 32
NEW = [*SETTINGS, "--stop-episodes", str(EPISODES), "--max-workers", "2", "--run-dir", "sweep"]
RESUME = ["--resume", "sweep", "--max-workers", "2"]


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that are killed at the end of the test, should it fail."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


def begin(
    started: list["subprocess.Popen[str]"], folder: Path, *arguments: str
) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [*COMMAND, "sweep", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    started.append(process)
    return process


def made(trial: Path) -> list[dict[str, Any]]:
    return metrics(trial) if (trial / "metrics.jsonl").exists() else []


def updates(trial: Path) -> int:
    return len(made(trial))


def processes_of(sweep: Path) -> dict[str, psutil.Process]:
    """The running processes of a sweep's trials, by the trial's name."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            for word in process.cmdline():
                # The sweep was started in its parent folder and named by a relative path.
                if word.startswith("sweep/seed_") and process.cwd() == str(sweep.parent):
                    found[Path(word).name] = process
    return found


def workers_of(process: psutil.Process) -> int:
    command = process.cmdline()
    return int(command[command.index("--num-workers") + 1])


def workers_of_all(sweep: Path) -> int:
    with suppress(psutil.Error):
        return sum(map(workers_of, processes_of(sweep).values()))
    return 0


def raylet_of(process: "subprocess.Popen[str]") -> psutil.Process:
    children = psutil.Process(process.pid).children(recursive=True)
    return next(child for child in children if child.name() == "raylet")


def check_bits(sweep: Path, seeds: int) -> None:
    """Each trial must have every update once, with the bits of the same run alone, without Ray."""
    for seed in range(seeds):
        config = TrainConfig(
            seed=seed,
            frame_limit=2000,
            batch_size=4,
            hidden_units=8,
            stop_episodes=EPISODES,
            run_dir=sweep.parent / f"alone-{seed}",
        )
        with open_run(config) as alone:
            state = TrainingState.initial(config)
            saved = alone.save(config, state, best=False)
            workers = SimulatedWorkerPool(play_for_real(config), 1)
            Learner(config, state, workers, alone, NullReporter(), saved).run(lambda: False)
        lines = made(sweep / f"seed_{seed}")
        assert len(lines) == EPISODES // 4
        expected = [line["weights_checksum"] for line in made(alone.path)]
        assert [line["weights_checksum"] for line in lines] == expected


def test_a_killed_sweep_with_fixed_workers_ends_in_the_bits_of_the_runs_alone(
    tmp_path: Path, started: list["subprocess.Popen[str]"]
) -> None:
    sweep = tmp_path / "sweep"
    process = begin(started, tmp_path, *NEW, "--seeds", "0-1", "--num-workers", "1")
    until(lambda: min(updates(sweep / f"seed_{seed}") for seed in (0, 1)) >= 2, process)
    process.kill()
    # Resumed at once: the trials may still be saving.
    process = begin(started, tmp_path, *RESUME, "--num-workers", "1")
    said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, said
    check_bits(sweep, 2)


@pytest.mark.slow
def test_a_sweep_that_is_killed_twice_ends_in_the_bits_of_the_runs_alone(
    tmp_path: Path, started: list["subprocess.Popen[str]"]
) -> None:
    sweep = tmp_path / "sweep"
    process = begin(started, tmp_path, *NEW, "--seeds", "0-2")
    until(lambda: min(updates(sweep / f"seed_{seed}") for seed in (0, 1)) >= 2, process)
    trials = processes_of(sweep)
    assert {name: workers_of(trial) for name, trial in trials.items()} == {"seed_0": 1, "seed_1": 1}
    second = distributed_pg("sweep", *RESUME, cwd=tmp_path)
    assert_one_line_error(second, 2, r"--run-dir: sweep is in use by process \d+ on ")
    process.kill()
    until(lambda: not processes_of(sweep))

    process = begin(started, tmp_path, *RESUME)
    until(lambda: updates(sweep / "seed_2") >= 1, process)
    process.kill()
    done = next(s for s in ("seed_0", "seed_1") if updates(sweep / s) == EPISODES // 4)
    before = (sweep / f"{done}.log").read_bytes()

    # Resumed at once: the trials may still be saving.
    process = begin(started, tmp_path, *RESUME)
    assert process.stdout is not None
    assert "trials done" in process.stdout.readline()
    process.stdout.close()  # as `| head -1` does
    assert process.wait(DEADLINE) == 0
    assert (sweep / f"{done}.log").read_bytes() == before
    assert made(sweep / "seed_2")[-1]["workers"] == 2  # alone at the end, it had both CPUs
    assert (sweep / "curves.csv").read_text().count("\n") == 1 + 3 * EPISODES // 4
    assert (sweep / "curves.png").read_bytes().startswith(b"\x89PNG")
    check_bits(sweep, 3)
    # Trials without their Ray end by themselves; Ray would end them after a minute.
    for seed in range(3):
        assert "Failed to connect to GCS" not in (sweep / f"seed_{seed}.log").read_text()


@pytest.mark.slow
def test_a_sweep_outlives_what_befalls_its_trials_and_its_ray(
    tmp_path: Path, started: list["subprocess.Popen[str]"]
) -> None:
    sweep = tmp_path / "sweep"
    process = begin(started, tmp_path, *NEW, "--seeds", "0-1")
    until(lambda: updates(sweep / "seed_0") >= 1, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, said
    assert "Saving and stopping all trials; once more to exit at once\n" in said
    assert "2 of 2 trials are not finished\n" in said
    assert "sweep --resume sweep\n" in said
    assert not processes_of(sweep)
    saved = updates(sweep / "seed_0")

    # A trial whose log cannot be written fails; the other one is killed, and so is Ray.
    (sweep / "seed_1.log").unlink()
    (sweep / "seed_1.log").mkdir()
    process = begin(started, tmp_path, *RESUME)
    until(lambda: workers_of_all(sweep) == 2 and updates(sweep / "seed_0") > saved, process)
    killed = processes_of(sweep)["seed_0"]
    killed.kill()
    until(lambda: not killed.is_running() and workers_of_all(sweep) == 2, process)
    raylet_of(process).kill()
    said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1, said
    failed = [line for line in said.splitlines() if "failed" in line and "trials done" not in line]
    assert len(failed) == 2, said
    assert failed[0].endswith(
        "seed_1: failed: sweep/seed_1.log: cannot be written (Is a directory)"
    )
    assert failed[1] == "1 of 2 trials failed: seed_1"
    assert "seed_0: killed by SIGKILL; it is resumed\n" in said
    assert "raylet on this machine has ended; the trials are saved, and Ray is restarted\n" in said
    assert updates(sweep / "seed_0") == EPISODES // 4

    # The next one tries the failed trial again; it is told twice to stop.
    shutil.rmtree(sweep / "seed_1.log")
    process = begin(started, tmp_path, *RESUME)
    until(lambda: processes_of(sweep).keys() == {"seed_1"}, process)
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    while "Saving and stopping" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE) in (0, 128 + signal.SIGINT)
    until(lambda: not processes_of(sweep))
    resumed = distributed_pg("sweep", *RESUME, "--quiet", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    check_bits(sweep, 2)

    # Nothing is left to do: no Ray is started.
    nothing = distributed_pg("sweep", "--resume", "sweep", cwd=tmp_path, RAY_ADDRESS="nowhere:1")
    assert nothing.returncode == 0, nothing.stderr
    assert "All 2 trials are done; more --seeds" in nothing.stdout
    assert "default" in nothing.stdout
    assert "--resume" not in nothing.stdout
