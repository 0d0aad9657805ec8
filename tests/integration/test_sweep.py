"""Sweeps on real Ray: killed, stopped, resumed and broken, their trials have the bits of runs."""

import functools
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
from command import COMMAND, DEADLINE, assert_refused, distributed_pg, metrics, until
from learner_runs import checksums
from small_runs import listing
from sweeps import make_run

from distributed_pg.config import TrainConfig
from distributed_pg.sweep.folder import SweepFolder

SETTINGS = ["--frame-limit", "1000", "--batch-size", "2", "--hidden-units", "8"]
EPISODES = 20
NEW = [*SETTINGS, "--stop-episodes", str(EPISODES), "--max-workers", "2", "--run-dir", "sweep"]
RESUME = ["--resume", "sweep", "--max-workers", "2"]
ONE_WORKER = ["--num-workers", "1"]


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


def raylet_of(process: "subprocess.Popen[str]") -> psutil.Process:
    children = psutil.Process(process.pid).children(recursive=True)
    return next(child for child in children if child.name() == "raylet")


@functools.cache
def checksums_alone(seed: int) -> list[str]:
    """The checksum after each update of a trial, had it run alone and without Ray."""
    return checksums(
        TrainConfig(
            seed=seed, frame_limit=1000, batch_size=2, hidden_units=8, stop_episodes=EPISODES
        )
    )


def check_bits(sweep: Path, seeds: int) -> None:
    """Each trial must have every update once, with the bits of the same run alone, without Ray."""
    for seed in range(seeds):
        lines = made(sweep / f"seed_{seed}")
        assert len(lines) == EPISODES // 2
        assert [line["weights_checksum"] for line in lines] == checksums_alone(seed)


@pytest.mark.slow
def test_a_sweep_that_is_killed_ends_in_the_bits_of_the_runs_alone(
    tmp_path: Path,
    started: list["subprocess.Popen[str]"],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = tmp_path / "sweep"
    process = begin(started, tmp_path, *NEW, "--seeds", "0-3")
    until((sweep / "sweep.json").exists, process)
    monkeypatch.chdir(tmp_path)
    in_use = r"^distributed-pg: error: sweep is in use by process \d+ on "
    assert_refused(capsys, "sweep", *RESUME, code=2, pattern=in_use)
    until(lambda: min(updates(sweep / f"seed_{seed}") for seed in (0, 1)) >= 1, process)
    trials = processes_of(sweep)
    assert {name: workers_of(trial) for name, trial in trials.items()} == {"seed_0": 1, "seed_1": 1}
    process.kill()
    folder = SweepFolder.open(sweep)
    make_run(folder, folder.trials[3], [-21.0] * (EPISODES // 2))
    done = listing(sweep / "seed_3")

    # Resumed at once: the trials may still be saving.
    process = begin(started, tmp_path, *RESUME)
    assert process.stdout is not None
    assert "trials done" in process.stdout.readline()
    process.stdout.close()  # as `| head -1` does
    assert process.wait(DEADLINE) == 0
    assert not processes_of(sweep)
    assert listing(sweep / "seed_3") == done
    assert not (sweep / "seed_3.log").exists()
    assert made(sweep / "seed_2")[-1]["workers"] == 2  # alone at the end, it had both CPUs
    assert (sweep / "curves.csv").read_text().count("\n") == 1 + 4 * EPISODES // 2
    assert (sweep / "curves.png").read_bytes().startswith(b"\x89PNG")
    check_bits(sweep, 3)
    # Trials without their Ray end by themselves; Ray would end them after a minute.
    for seed in range(3):
        assert "Failed to connect to GCS" not in (sweep / f"seed_{seed}.log").read_text()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_sweep_outlives_what_befalls_its_trials_and_its_ray(
    tmp_path: Path, started: list["subprocess.Popen[str]"]
) -> None:
    sweep = tmp_path / "sweep"
    process = begin(started, tmp_path, *NEW, "--seeds", "0-1", *ONE_WORKER)
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
    process = begin(started, tmp_path, *RESUME, *ONE_WORKER)
    until(lambda: updates(sweep / "seed_0") > saved, process)
    killed = processes_of(sweep)["seed_0"]
    assert workers_of(killed) == 1
    killed.kill()
    until(lambda: not killed.is_running() and "seed_0" in processes_of(sweep), process)
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
    assert updates(sweep / "seed_0") == EPISODES // 2

    # The next one tries the failed trial again.
    shutil.rmtree(sweep / "seed_1.log")
    resumed = distributed_pg("sweep", *RESUME, "--quiet", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    check_bits(sweep, 2)

    # Nothing is left to do: no Ray is started.
    nothing = distributed_pg("sweep", "--resume", "sweep", cwd=tmp_path, RAY_ADDRESS="nowhere:1")
    assert nothing.returncode == 0, nothing.stderr
    assert "All 2 trials are done; more --seeds" in nothing.stdout
    assert "default" in nothing.stdout
    assert "--resume" not in nothing.stdout
