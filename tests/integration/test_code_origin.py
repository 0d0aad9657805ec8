"""Workers run the learner's code, and nothing that happens to lie around is run."""

import json
import os
import sys
from pathlib import Path

import pytest
from command import QUICK, metrics, run
from learner_runs import checksums
from lying_around import INSTALLED, PACKAGE, Traps, copy_package
from ray_cluster import NO_IDLE_WORKERS

from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError
from distributed_pg.runtime import jobs
from distributed_pg.runtime.worker_code import check_code, code_for_workers
from distributed_pg.system_info import code_digest, own_code, python_files
from distributed_pg.training.rollout_worker import WorkerInfo

BRIEF = [*QUICK, "--stop-episodes", "1", "--quiet"]


@pytest.fixture(scope="module")
def traps(tmp_path_factory: pytest.TempPathFactory) -> Traps:
    return Traps(tmp_path_factory.mktemp("lying"))


def test_no_file_of_the_current_folder_is_run(traps: Traps, tmp_path: Path) -> None:
    # Under `uv run`, Ray would send the current folder. It tells by the names of the processes
    # above: here a shell that runs a file of that name. In a job with a working_dir, that is sent.
    (traps.folder / "run").write_text('"$@"')
    uv = ("bash", "-c", 'exec -a uv bash run "$@"; exit', "bash", str(INSTALLED))
    job = json.dumps({"runtime_env": {"working_dir": "https://nowhere.invalid/job.zip"}})
    train = ("train", *BRIEF, "--run-dir", str(tmp_path / "run"))
    trained = run(*uv, *train, cwd=traps.folder, RAY_JOB_CONFIG_JSON_ENV_VAR=job)
    assert (trained.returncode, traps.sprung) == (0, ""), trained.stderr


def test_no_file_of_the_current_folder_is_run_in_other_processes(
    traps: Traps, tmp_path: Path
) -> None:
    (tmp_path / "measure.py").write_text(
        "import subprocess\n"
        "from distributed_pg.own_code import own_command\n"
        "from distributed_pg.benchmark.comparisons import emulator_rate\n"
        "if __name__ == '__main__':\n"
        "    assert emulator_rate(2, 0.1).frames > 0\n"
        "    subprocess.run(own_command('train', '--help'), check=True)\n"
    )
    measured = run(sys.executable, tmp_path / "measure.py", cwd=traps.folder)
    assert (measured.returncode, traps.sprung) == (0, ""), measured.stderr
    assert "--batch-size" in measured.stdout


def test_a_job_does_not_look_for_the_package_where_it_begins(traps: Traps) -> None:
    command = jobs.TRAIN.format(flags="--help").replace("cd / &&", "")
    shell = ("env", f"PATH={INSTALLED.parent}:{os.environ['PATH']}", "sh", "-c", command)
    submitted = run(*shell, cwd=traps.folder, PYTHONPATH=str(PACKAGE.parent))
    assert (submitted.returncode, traps.sprung) == (0, ""), submitted.stderr
    assert "--batch-size" in submitted.stdout


MEASURE = """
from distributed_pg.benchmark.comparisons import emulator_rate
if __name__ == "__main__":
    assert emulator_rate(1, 0.1).frames > 0
"""


def test_without_a_current_folder(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    leave = ("sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh")
    trained = run(*leave, INSTALLED, "train", *BRIEF, "--run-dir", tmp_path / "run", cwd=gone)
    assert trained.returncode == 0, trained.stderr
    gone.mkdir()
    script = tmp_path / "script.py"
    script.write_text(MEASURE)
    measured = run(*leave, sys.executable, script, cwd=gone)
    assert measured.returncode == 0, measured.stderr
    assert not gone.exists()


USE_A_COPY = """
import os, sys
from pathlib import Path
import psutil

copy, elsewhere, run_dir = map(Path, sys.argv[1:])
sys.path.insert(0, str(copy.parent))
from distributed_pg.config import TrainConfig
from distributed_pg.monitoring.log import log_shown_by
from distributed_pg.trainer import train

assert sys.modules["distributed_pg"].__file__ == str(copy / "__init__.py")
os.chdir(elsewhere)

class Meddler:
    # After the first update the copy becomes unusable, and the worker has to start again.
    def updated(self, record):
        if record.update == 1:
            (copy / "envs/pong.py").write_text("raise ImportError('changed while it runs')")
            workers = [p for p in psutil.Process().children(recursive=True)
                       if "RolloutWorker" in " ".join(p.cmdline())]
            workers[0].kill()

settings = dict(num_workers=1, batch_size=1, frame_limit=400, hidden_units=8)
config = TrainConfig(**settings, stop_episodes=4, run_dir=run_dir)
lines = []
with log_shown_by(lines.append):
    assert train(config, Meddler()).progress.episodes == 4
assert any("is played again" in line for line in lines), lines
"""


def test_workers_run_the_code_that_the_learner_began_with(traps: Traps, tmp_path: Path) -> None:
    copy = copy_package(tmp_path / "copy")
    script = tmp_path / "script.py"
    script.write_text(USE_A_COPY)
    used = run(sys.executable, script, copy, traps.folder, tmp_path / "run", cwd=traps.folder)
    assert (used.returncode, traps.sprung) == (0, ""), used.stderr
    config = TrainConfig(batch_size=1, frame_limit=400, hidden_units=8, stop_episodes=4)
    made = [line["weights_checksum"] for line in metrics(tmp_path / "run")]
    assert made == checksums(config)


REFUSED = """
import sys, ray
from distributed_pg.cli.main import main
from distributed_pg.runtime import worker_lifecycle
worker_lifecycle.START_ATTEMPTS = 2
ray.init(
    address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
    logging_level="critical", runtime_env={"env_vars": {"PYTHONPATH": sys.argv[1]}},
)
sys.exit(main(sys.argv[2:]))
"""


def test_a_worker_that_runs_other_code_is_refused(tmp_path: Path) -> None:
    copy = copy_package(tmp_path / "copy")
    train = ("train", *BRIEF, "--run-dir", str(tmp_path / "run"))
    script = (sys.executable, "-c", REFUSED, str(copy.parent))
    refused = run(*script, *train, cwd=tmp_path, **NO_IDLE_WORKERS)
    assert refused.returncode == 1
    *waited, line = refused.stderr.splitlines()
    assert all("no worker has been ready" in each for each in waited)
    there, here = (
        f"{copy} on {own_code().host} (digest {code_digest(python_files(copy))})",
        own_code(),
    )
    assert f"a worker runs other code than this process: {there}, and here {here};" in line


def test_a_worker_of_an_older_version_is_refused() -> None:
    older = object.__new__(WorkerInfo)  # as what has no such field is unpickled
    with pytest.raises(RunError, match=r"an older distributed_pg, and here .*digest [0-9a-f]{16}"):
        check_code(older)
    check_code(WorkerInfo(1, {}, own_code()))


def test_the_digest_is_of_all_names_and_contents(tmp_path: Path) -> None:
    def package(name: str, files: dict[str, str]) -> str:
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return code_digest(python_files(tmp_path / name))

    files = {"a.py": "1", "b.py": "", "sub/c.py": "3"}
    one = package("one", files)
    assert one == package("same", dict(reversed(files.items())) | {"d.txt": "", "a.pyc": "x"})
    others = [
        package("content", files | {"sub/c.py": "4"}),
        package("moved", {"a.py": "", "b.py": "1", "sub/c.py": "3"}),
        package("name", {"a.py": "1", "b.py": "", "c.py": "3"}),
        package("more", files | {"d.py": ""}),
    ]
    assert len({one, *others}) == 5


def test_workers_are_sent_the_package_and_nothing_else() -> None:
    with code_for_workers() as environment:
        folder = Path(environment["working_dir"])
        assert [path.name for path in folder.iterdir()] == ["distributed_pg"]
        assert code_digest(python_files(folder / "distributed_pg")) == own_code().digest
        assert {path.suffix for path in folder.rglob("*.*")} == {".py"}
    assert not folder.exists()
