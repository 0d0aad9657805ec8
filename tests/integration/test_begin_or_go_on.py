"""Real runs that begin with other weights, and one command that begins and goes on."""

import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import learner_runs
import pytest
from command import COMMAND, QUICK, distributed_pg, metrics, until

from distributed_pg.config import TrainConfig
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.policy_file import load_policy
from distributed_pg.system_info import PACKAGE
from distributed_pg.trainer import resume, train


@pytest.mark.usefixtures("local_ray")
def test_a_warm_run_has_the_same_bits_on_two_workers_and_without_its_source(
    tmp_path: Path,
) -> None:
    source = tmp_path / "p.safetensors"
    source.write_bytes((PACKAGE / "assets/pretrained.safetensors").read_bytes())
    begun = weights_checksum(load_policy("pretrained").policy)

    def config(name: str, workers: int, episodes: int) -> TrainConfig:
        return TrainConfig(
            init_from=source,
            seed=9,
            learning_rate=3e-4,
            batch_size=2,
            frame_limit=600,
            num_workers=workers,
            stop_episodes=episodes,
            run_dir=tmp_path / name,
            resume="auto",
        )

    whole = train(config("whole", 1, 8), None)
    assert whole.weights_checksum != begun
    train(config("parts", 2, 4), None)
    source.unlink()
    again = train(config("parts", 2, 6), None)
    assert again.progress.episodes == 6
    parts = resume(tmp_path / "parts", None, stop_episodes=8)
    assert parts.weights_checksum == whole.weights_checksum
    assert load_policy(tmp_path / "parts").config.init_checksum == begun


FLAGS = ["--run-dir", "run", "--resume", "auto", "--checkpoint-every", "2", "--no-warm-up"]
LINE = ["train", *QUICK, *FLAGS, "--stop-episodes", "6"]


def begin(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, *LINE],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_command_that_is_killed_again_and_again_ends_with_the_bits_of_one_that_was_not(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    moments = (run, run / "checkpoints", run / "checkpoints/update-00000000.safetensors")
    for file in (*moments, run / "metrics.jsonl"):
        process = begin(tmp_path)
        until(file.exists, process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)

    both = [begin(tmp_path), begin(tmp_path)]
    until(lambda: any(process.poll() is not None for process in both))
    refused, goes_on = sorted(both, key=lambda process: process.poll() is None)
    errors = refused.communicate(timeout=60)[1]
    assert (refused.returncode, len(errors.splitlines())) == (2, 1), errors
    assert f"run is in use by process {goes_on.pid} on " in errors
    output, errors = goes_on.communicate(timeout=240)
    assert goes_on.returncode == 0, errors
    assert "Done after 6 episodes" in output

    whole = replace(learner_runs.QUICK, stop_episodes=6, warm_up=False)
    ours = [(entry["update"], entry["weights_checksum"]) for entry in metrics(run)]
    assert ours == [*enumerate(learner_runs.checksums(whole), 1)]
    done = distributed_pg(*LINE, cwd=tmp_path)
    assert done.returncode == 0
    assert "Nothing is left to do in run" in done.stdout
