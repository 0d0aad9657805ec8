"""The pool of Ray actors: workers start or do not, come and go, and answer."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from command import DEADLINE
from learner_runs import run as run_without_ray
from ray.experimental import get_local_object_locations
from worker_processes import worker_processes

from distributed_pg.algo.state import TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.determinism import kernel_environment
from distributed_pg.errors import RomNotFoundError, RunError
from distributed_pg.runtime.actor import play, start_worker, worker_environment
from distributed_pg.runtime.ray_worker_pool import RayWorkerPool
from distributed_pg.runtime.session import ray_session
from distributed_pg.runtime.weights_holder import WeightsHolder
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.trainer import train
from distributed_pg.training.rollout_worker import RolloutWorker, WorkerInfo
from distributed_pg.training.schedule import EpisodeTask
from distributed_pg.training.worker_pool import EpisodeDone

pytestmark = pytest.mark.usefixtures("local_ray")

CONFIG = TrainConfig(seed=7, batch_size=10, frame_limit=500, stop_episodes=20)


def test_a_worker_without_the_game_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = kernel_environment() | {"ALE_ROMS_DIR": str(tmp_path)}
    monkeypatch.setattr("distributed_pg.runtime.actor.kernel_environment", lambda: environment)
    with pytest.raises(RomNotFoundError, match=r"Pong ROM: .*reinstall ale-py"):
        train(replace(CONFIG, num_workers=2, run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()  # so the same command works once the game is there


def test_workers_that_cannot_start_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    class CannotStart(RolloutWorker):  # in here, because workers cannot import this module
        def __init__(self, config: TrainConfig) -> None:
            raise ImportError("no module named emulator.py")

    monkeypatch.setattr("distributed_pg.runtime.actor.RolloutWorker", CannotStart)
    monkeypatch.setattr("distributed_pg.runtime.worker_lifecycle.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("distributed_pg.runtime.worker_lifecycle.START_ATTEMPTS", 2)
    with pytest.raises(RunError) as raised:
        train(replace(CONFIG, num_workers=1, run_dir=tmp_path / "run"), None)
    reason = "ActorDiedError: ImportError: no module named emulator.py"
    assert str(raised.value) == f"no worker can be started: {reason}"
    again = f"a worker did not start and is retried ({reason})"
    assert again in told
    assert all(line == again or line.startswith("no worker has been ready") for line in told)


GOES, SOME = "a file that goes", "only some files"


@pytest.mark.exhaustive
@pytest.mark.parametrize("found", [[GOES, SOME], [SOME] * 4])
def test_a_worker_that_starts_while_its_code_is_unpacked_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str], found: list[str]
) -> None:
    """Two raylets on one host share a folder, and the second one unpacks the code once more."""
    for number, what in enumerate(found):
        (tmp_path / f"{number} {what}").touch()

    class Starts(RolloutWorker):  # in here, because workers cannot import this module
        def prepare(self) -> WorkerInfo:
            info = super().prepare()
            now = min(tmp_path.glob("? *"), default=None)
            if now is None:
                return info
            now.unlink()
            if now.name.endswith(SOME):
                return replace(info, code=replace(info.code, digest="0"))
            raise FileNotFoundError(2, "No such file", "policy.py")

    monkeypatch.setattr("distributed_pg.runtime.actor.RolloutWorker", Starts)
    result = train(replace(CONFIG, num_workers=1, run_dir=tmp_path / "run", stop_episodes=10), None)
    assert result.progress.episodes == 10
    assert not list(tmp_path.glob("? *"))
    retried = [line for line in told if line.startswith("a worker did not start and is retried")]
    assert len(retried) == (GOES in found)
    assert all("FileNotFoundError" in line and "policy.py" in line for line in retried)


def starting_late(marks: Path, failures: int) -> type[WeightsHolder]:
    """A holder that does not start the first ``failures`` times; each attempt leaves a mark."""
    marks.mkdir()

    class StartsLate(WeightsHolder):  # in here, because workers cannot import this module
        def __init__(self) -> None:
            mark = marks / str(len(list(marks.iterdir())))
            mark.touch()
            if int(mark.name) < failures:
                raise ModuleNotFoundError("No module named 'distributed_pg.algo.rollout'")

    return StartsLate


def test_a_weights_holder_that_does_not_start_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    marks = tmp_path / "marks"
    undisturbed, *_ = run_without_ray(CONFIG, tmp_path / "undisturbed")
    holder = "distributed_pg.runtime.weights_holder.WeightsHolder"
    monkeypatch.setattr(holder, starting_late(marks, 2))
    result = train(replace(CONFIG, num_workers=2, run_dir=tmp_path / "run"), None)
    assert result.weights_checksum == weights_checksum(undisturbed.policy)
    assert len(list(marks.iterdir())) == 3
    reason = "ActorDiedError: ModuleNotFoundError: No module named 'distributed_pg.algo.rollout'"
    replaced = f"the process that holds the weights is gone and is replaced ({reason})"
    assert told.count(replaced) == 2
    again = re.compile(rf"episode \d+ is played again \({re.escape(reason)}\)")
    assert any(again.fullmatch(line) for line in told), told
    # On a busy machine, a second worker may play a slow episode as well.
    slow = re.compile(r"episode \d+ takes over 4 times .* s: a second worker plays it too")
    assert all(line.endswith(f"({reason})") or slow.fullmatch(line) for line in told), told


@pytest.mark.exhaustive
def test_a_weights_holder_that_never_starts_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = "distributed_pg.runtime.weights_holder.WeightsHolder"
    monkeypatch.setattr(holder, starting_late(tmp_path / "marks", 1000))
    reason = "the process that holds the weights cannot be started: ActorDiedError: ModuleNotFound"
    with pytest.raises(RunError, match=reason):
        train(replace(CONFIG, num_workers=1, run_dir=tmp_path / "run"), None)


def test_workers_whose_environment_cannot_be_set_up_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    environment = worker_environment() | {"working_dir": "https://127.0.0.1:1/code.zip"}
    monkeypatch.setattr("distributed_pg.runtime.actor.worker_environment", lambda _: environment)
    monkeypatch.setattr("distributed_pg.runtime.worker_lifecycle.RETRY_SECONDS", 0.01)
    with pytest.raises(RunError, match="no worker can be started: RuntimeEnvSetupError: "):
        train(replace(CONFIG, num_workers=1, run_dir=tmp_path / "run"), None)
    assert not any("cannot be reached" in line for line in told)


def test_the_user_is_told_when_no_cpu_is_free(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setattr("distributed_pg.runtime.worker_lifecycle.PATIENCE_SECONDS", 0.1)
    with RayWorkerPool(CONFIG, lambda: 3) as busy:
        deadline = time.monotonic() + 60
        while busy.workers < 3:
            assert time.monotonic() < deadline
            busy.poll(1.0, 60.0)
        with RayWorkerPool(CONFIG, lambda: 1) as starved:
            deadline = time.monotonic() + 60
            while not told and time.monotonic() < deadline:
                starved.poll(0.2, 60.0)
    assert told == [
        "no worker has been ready for 0 s; each needs a CPU of its own, and the cluster has 3"
    ]


def test_auto_is_a_worker_for_each_cpu_of_the_cluster() -> None:
    with ray_session(None, "auto") as session:
        assert session.workers() == 3
    with ray_session(None, "auto", max_workers=2) as session:
        assert session.workers() == 2
    with ray_session(None, 5, max_workers=2) as session:
        assert session.workers() == 5


def test_the_cluster_follows_the_number_of_workers_that_is_wanted() -> None:
    wanted = 1
    with RayWorkerPool(CONFIG, lambda: wanted) as cluster:
        _wait_for(cluster, lambda: cluster.workers == 1)
        wanted = 5  # the cluster has three CPUs, so two have to wait
        _wait_for(cluster, lambda: cluster.workers == 3)
        assert cluster.starting
        wanted = 3
        _wait_for(cluster, lambda: not cluster.starting)
        assert cluster.workers == 3


def _wait_for(cluster: RayWorkerPool, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        cluster.poll(0.1, 60.0)


def test_workers_run_with_the_kernels_that_give_the_same_bits_everywhere() -> None:
    before = {process.pid for process in worker_processes()}  # of other tests, about to end
    with RayWorkerPool(CONFIG, lambda: 1) as cluster:
        while cluster.workers < 1:
            cluster.poll(1.0, 60.0)
        (worker,) = (process for process in worker_processes() if process.pid not in before)
        environment = worker.environ()
    assert kernel_environment().items() <= environment.items()


def test_a_gradient_that_has_arrived_cannot_be_lost_with_its_node() -> None:
    weights = ray.put(TrainingState.initial(CONFIG).policy)
    worker = start_worker(CONFIG)
    answer = play(worker)(0, weights)
    ray.wait([answer], timeout=DEADLINE)
    stored = get_local_object_locations([weights, answer])
    ray.kill(worker)
    assert len(stored[weights]["node_ids"]) == 1
    assert not stored[answer]["node_ids"]
    (stats,), gradient = ray.get(answer)
    assert gradient.nbytes == stats.gradient_bytes > 100 * 1024


def test_an_answer_says_how_long_it_took_the_learner_to_get_it() -> None:
    with RayWorkerPool(CONFIG, lambda: 1) as cluster:
        _wait_for(cluster, lambda: cluster.workers == 1)
        cluster.broadcast(0, TrainingState.initial(CONFIG).policy)
        begin = time.monotonic()
        cluster.submit(EpisodeTask(0, 0))
        cluster.submit(EpisodeTask(1, 0))
        time.sleep(1.0)  # a learner that is busy with other things
        answers: list[EpisodeDone] = []
        while len(answers) < 2:
            answers += [e for e in cluster.poll(1.0, 60.0) if isinstance(e, EpisodeDone)]
        assert answers[0].seconds > 1.0
        # The second task waited for the first game; its time begins when that was over.
        assert sum(answer.seconds for answer in answers) < time.monotonic() - begin
