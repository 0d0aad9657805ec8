"""Real runs that begin with other weights, and one command that begins and goes on."""

import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import learner_runs
import pytest
from command import COMMAND, QUICK, metrics, until

from distributed_pg.cli.main import main
from distributed_pg.config import TrainConfig
from distributed_pg.storage import warm_start
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.policy_file import load_policy
from distributed_pg.system_info import PACKAGE
from distributed_pg.trainer import resume, train


@pytest.mark.exhaustive  # tests/unit/training/test_warm_runs.py has it without Ray
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

    pinned, state = warm_start.begin(config("whole", 1, 8))
    whole, *_ = learner_runs.run(pinned, tmp_path / "whole", state)
    assert weights_checksum(whole.policy) != begun
    train(config("parts", 2, 4), None)
    source.unlink()
    again = train(config("parts", 1, 6), None)
    assert again.progress.episodes == 6
    parts = resume(tmp_path / "parts", None, stop_episodes=8, num_workers=1)
    assert parts.weights_checksum == weights_checksum(whole.policy)
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``tests/unit/storage/test_killed_start.py`` kills it at every change of a file."""
    run = tmp_path / "run"
    for file in (run / "checkpoints/update-00000000.safetensors", run / "metrics.jsonl"):
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
    monkeypatch.chdir(tmp_path)
    assert main(LINE) == 0
    assert "Nothing is left to do in run" in capsys.readouterr().out
