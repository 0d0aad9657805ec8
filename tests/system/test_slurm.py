"""Jobs on a real Slurm: signalled before their limit, requeued, and ended with the same bits."""

from collections.abc import Iterator

import pytest
from command import ROOT, metrics, until
from learner_runs import run as run_without_ray
from slurm_cluster import Slurm, slurm_cluster, unavailable

from distributed_pg.config import TrainConfig
from distributed_pg.presets import as_flags

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

SCRIPT = ROOT / "docs/slurm.sbatch"
CONFIG = TrainConfig(seed=7, batch_size=2, frame_limit=1000, hidden_units=8, stop_episodes=12)
FLAGS = as_flags(CONFIG.differences(TrainConfig()))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm_cluster(tmp_path_factory.mktemp("jobs")) as slurm:
        yield slurm


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    _, recorder, _ = run_without_ray(CONFIG, tmp_path_factory.mktemp("whole") / "run")
    return [(record.update, record.weights_checksum) for record in recorder.records]


def submit_and_freeze(slurm: Slurm, run: str, *options: str) -> str:
    """Submit a job, and stop its workers after an update.

    So it has work left when the signal comes, however fast the machine is.
    """
    job = slurm.submit(*options, "--cpus-per-task=1", SCRIPT, run, *FLAGS)
    file = slurm.jobs / run / "metrics.jsonl"
    until(lambda: file.exists() and len(metrics(file.parent)) > 0)
    for worker in slurm.processes(job, "RolloutWorker"):
        worker.suspend()
    return job


def assert_requeued_with_the_same_bits(
    slurm: Slurm, job: str, run: str, undisturbed: list[tuple[int, str]]
) -> None:
    slurm.wait_restart(job)
    stopped_at = len(metrics(slurm.jobs / run))
    slurm.wait(job, "COMPLETED", "FAILED")
    log = (slurm.jobs / f"pong-{job}.log").read_text()
    assert log.count("Stopped on request after") == 1, log
    assert log.count("Done after 12 episodes, 6 updates.") == 1, log
    state = slurm.state(job)
    assert (state["Restarts"], state["ExitCode"]) == ("1", "0:0")
    lines = metrics(slurm.jobs / run)
    assert 0 < stopped_at < len(lines)
    assert [(line["update"], line["weights_checksum"]) for line in lines] == undisturbed
    assert f"Weights checksum: {undisturbed[-1][1]}" in log
    until(lambda: not slurm.processes(job, "ray"), every=0.5)


@pytest.mark.slow
def test_a_job_is_requeued_at_its_time_limit_and_goes_on(
    slurm: Slurm, undisturbed: list[tuple[int, str]]
) -> None:
    job = submit_and_freeze(slurm, "one")
    hours, minutes, _ = map(int, slurm.state(job)["RunTime"].split(":"))
    # The script asks for a signal two minutes before the limit; Slurm looks every 30 seconds.
    near = 60 * hours + minutes + 2
    slurm.call("scontrol", "update", f"JobId={job}", f"TimeLimit={near}")
    slurm.wait_restart(job)
    slurm.call("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    assert_requeued_with_the_same_bits(slurm, job, "one", undisturbed)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_job_on_two_nodes_is_requeued_and_goes_on(
    slurm: Slurm, undisturbed: list[tuple[int, str]]
) -> None:
    job = submit_and_freeze(slurm, "two", "--nodes=2")
    assert slurm.state(job)["NodeList"] == "one,two"
    assert len(slurm.processes(job, "raylet/raylet")) == 2
    slurm.call("scancel", "--batch", "--signal=USR1", job)
    assert_requeued_with_the_same_bits(slurm, job, "two", undisturbed)


def test_a_job_that_fails_is_not_requeued(slurm: Slurm) -> None:
    job = slurm.submit("--cpus-per-task=1", SCRIPT, "wrong", "--batch-size", "0")
    slurm.wait(job, "FAILED")
    state = slurm.state(job)
    assert (state["Restarts"], state["ExitCode"]) == ("0", "2:0")
    log = (slurm.jobs / f"pong-{job}.log").read_text()
    assert "--batch-size" in log
    assert len(log.splitlines()) == 1
    assert not (slurm.jobs / "wrong").exists()


def test_a_job_without_a_run_shows_how_to_submit_it(slurm: Slurm) -> None:
    job = slurm.submit("--cpus-per-task=1", SCRIPT)
    slurm.wait(job, "FAILED")
    assert slurm.state(job)["ExitCode"] == "2:0"
    assert (slurm.jobs / f"pong-{job}.log").read_text().startswith("usage: sbatch slurm.sbatch RUN")
