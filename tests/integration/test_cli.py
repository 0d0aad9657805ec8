"""The command as a user runs it: what it prints, where, and its exit code."""

import contextlib
import fcntl
import http.server
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import COMMAND, QUICK, assert_one_line_error, assert_refused, distributed_pg, metrics
from ray_cluster import ray_cluster

from distributed_pg.cli.main import main


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run, made by the command."""
    folder = tmp_path_factory.mktemp("cli")
    arguments = ("train", *QUICK, "--stop-episodes", "3", "--run-dir", "run")
    result = distributed_pg(*arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "update 1 episodes 1 " in result.stdout
    assert "Done after 3 episodes, 3 updates." in result.stdout
    assert "Checkpoint: run/checkpoints/update-00000003.safetensors" in result.stdout
    assert "\x1b" not in result.stdout  # plain lines where there is no terminal
    return folder / "run"


def test_help_names_presets_and_settings(tmp_path: Path) -> None:
    assert "train" in distributed_pg(cwd=tmp_path).stdout
    text = distributed_pg("train", "--help", cwd=tmp_path, COLUMNS="200").stdout
    assert "default: learning rate 0.003, batch size 1, learned baseline, policy lag 1, 2 f" in text
    assert "karpathy: learning rate 0.0001, batch size 10, mean baseline, policy lag 0, 4 f" in text
    for flag in ("--seed", "--batch-size", "--num-workers", "--learning-rate", "--resume"):
        assert flag in text
    text = distributed_pg(
        "train", "--preset", "karpathy", "--help", cwd=tmp_path, COLUMNS="200"
    ).stdout
    said = r"--batch-size INT +Episodes summed in one update. \(from 1 to 100000; default: 10\)"
    assert re.search(said, text)


def test_output_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [*COMMAND, "train", "--help"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "code", "pattern"),
    [
        ("train --batch-size 0", 2, "--batch-size: 0 is not a whole number from 1 to 100000$"),
        ("train --run-dir /dev/null/run", 1, "--run-dir: /dev/null/run cannot be written"),
        ("benchmark --out /dev/null/out", 1, "--out: /dev/null/out cannot be written"),
        ("evaluate nowhere", 2, "nowhere: No such file or directory; give a checkpoint"),
        ("evaluate . ", 2, "holds no run"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    code: int,
    pattern: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, *arguments.split(), code=code, pattern=pattern)
    assert list(tmp_path.iterdir()) == []


def on_a_terminal(*arguments: str | Path, cwd: Path, **environment: str) -> str:
    """What the command writes to a terminal of 100 columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"TERM": "xterm-256color"} | environment,
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    written = b""
    with contextlib.suppress(OSError):  # how a terminal's end is told
        while some := os.read(ours, 65536):
            written += some
    os.close(ours)
    assert process.wait(60) == 0, written.decode()
    return written.decode()


COLOURED = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])(?:;\d+)*m")


def test_a_resumed_run_keeps_its_settings_and_has_a_panel_on_a_terminal(
    finished_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    arguments = ("train", "--resume", "run", "--stop-episodes", "5")
    screen = on_a_terminal(*arguments, cwd=tmp_path, NO_COLOR="")
    assert "Resuming run after 3 episodes" in screen
    assert "Starting the workers and playing the first batch" in screen
    assert "Ctrl-C saves and stops; --resume run continues" in screen
    last = screen[screen.rindex("running mean") :]
    # One dot an update, two dots a character: the updates before the resume are drawn as well.
    assert len(re.findall("[\u2801-\u28ff]", last)) == 3
    assert COLOURED.search(screen)
    assert re.search(r"record run --out game.mp4\s+\S+ -m distributed_pg report run ", last)
    assert "Done after 5 episodes, 5 updates." in last
    assert [line["update"] for line in metrics(run)] == [1, 2, 3, 4, 5]
    assert json.loads((run / "config.json").read_text())["frame_limit"] == 400


def test_a_run_directory_in_use_is_refused(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(finished_run.rglob("*"))
    arguments = ("train", "--run-dir", str(finished_run))
    assert_refused(capsys, *arguments, code=2, pattern="holds a run already; --resume")
    assert sorted(finished_run.rglob("*")) == before


def test_a_changed_setting_is_refused_on_resume(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", "--resume", str(finished_run), "--seed", "5")
    assert_refused(capsys, *arguments, code=2, pattern="--seed: the run in .* has 0, not 5")


def test_a_file_that_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("These are my notes.\n" * 40)
    pattern = "notes.txt: not a distributed_pg checkpoint"
    assert_refused(capsys, "evaluate", str(notes), code=1, pattern=pattern)


def test_evaluate_prints_one_json_object(finished_run: Path) -> None:
    arguments = ("evaluate", ".", "--episodes", "3", "--num-workers", "1", "--json")
    result = distributed_pg(*arguments, cwd=finished_run)
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert set(values) == {
        *("episodes", "mean", "std", "sem", "best", "worst", "won", "mean_length"),
    }
    assert values["episodes"] == 3
    assert values["mean_length"] == 200.0  # 400 frames, 2 a step


@pytest.mark.usefixtures("local_ray")
def test_evaluate_prints_a_table(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = finished_run / "checkpoints/update-00000003.safetensors"
    arguments = ("--episodes", "1", "--num-workers", "1", "--greedy")
    assert main(["evaluate", str(checkpoint), *arguments]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^ *episodes +1 *$", output, re.MULTILINE)
    assert re.search(r"^ *std +- *$", output, re.MULTILINE)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_benchmark_measures_everything_and_writes_it_down(
    tmp_path: Path, finished_run: Path
) -> None:
    arguments = ("benchmark", "--num-workers", "1", "--rounds", "1", "--seconds", "3")
    simulated = ("--simulate-workers", "4,16", "--episodes-per-task", "1,2")
    more = ("--native-kernels", *simulated, "--out", "measured")
    policy = ("--checkpoint", finished_run)
    # It measures for almost two minutes where it is alone, and here it is not.
    result = distributed_pg(*arguments, *more, *policy, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "measured/benchmark.json").read_text())
    assert report["cpus"] == os.cpu_count()
    rows = {(row["name"], row["workers"]): row for row in report["rows"]}
    names = {"emulator", "rollout", "numpy", "training", "native", "tutorial", "classic"}
    assert set(rows) == {(name, 1) for name in names}
    for row in rows.values():
        assert 0 < row["slowest"] <= row["frames_per_second"] <= row["fastest"]
        assert row["episodes_per_hour"] > 0
    assert rows["emulator", 1]["of_emulator"] == rows["training", 1]["speedup"] == 1.0
    assert all(row["of_emulator"] > 0 for row in rows.values())
    for name in ("training", "native"):
        assert 0.3 < rows[name, 1]["worker_busy"] <= 1.0
        assert rows[name, 1]["gradient_bytes"] > 8 * 4
    memory = report["memory"]
    assert 10**7 < memory["ray_worker"] < memory["worker"] < 10**9
    assert 10**7 < memory["learner"] < 10**9
    sizes = [(s["episodes_per_task"], s["workers"]) for s in report["simulations"]]
    assert sizes == [(1, 4), (1, 16), (2, 4), (2, 16)]
    for simulation in report["simulations"]:
        # None can return gradients faster than it would have played.
        assert 0 < simulation["worker_busy"] <= 1.01
        assert simulation["gradient_bytes"] > 8 * 4
    for name, written in (("benchmark", rows), ("saturation", sizes)):
        lines = (tmp_path / f"measured/{name}.csv").read_text().splitlines()
        assert len(lines) == 1 + len(written)
    for picture in ("scaling.png", "saturation.png"):
        assert (tmp_path / "measured" / picture).read_bytes()[:4] == b"\x89PNG"
        assert f"Wrote measured/{picture}" in result.stdout
    assert "round 1 of 1: training with 1" in result.stderr


def test_the_default_run_directory_is_named_more_workers_than_cpus_are_a_warning_without_colours(
    tmp_path: Path,
) -> None:
    workers = str((os.cpu_count() or 1) + 1)
    arguments = ("train", *QUICK, "--num-workers", workers, "--stop-episodes", "1", "--no-color")
    screen = on_a_terminal(*arguments, cwd=tmp_path, NO_COLOR="")
    assert "running mean" in screen
    assert not COLOURED.search(screen)
    assert re.search(rf"--num-workers: {workers} workers share \d+ CPUs", screen)
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_default", run.name)
    assert (run / "config.json").is_file()
    assert (run / "metrics.jsonl").is_file()


@pytest.fixture
def web_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_an_address_that_is_not_ray(tmp_path: Path, web_server: str) -> None:
    result = distributed_pg("train", "--address", web_server, cwd=tmp_path)
    assert_one_line_error(
        result, 1, f"--address: cannot join the Ray cluster at {web_server}: no answer within 20 s"
    )


@pytest.fixture(scope="module")
def cluster_address() -> Iterator[str]:
    """A Ray cluster of two nodes with a CPU each, that this process does not join."""
    with ray_cluster(head_cpus=1, node_cpus=1) as cluster:
        yield cluster.address


def test_a_quiet_run_on_a_cluster_has_the_same_bits_and_prints_where_it_is_and_nothing_else(
    finished_run: Path, cluster_address: str
) -> None:
    arguments = ("train", *QUICK, "--stop-episodes", "3", "--run-dir", "on-a-cluster", "--quiet")
    address = ("--num-workers", "auto", "--address", cluster_address)
    result = distributed_pg(*arguments, *address, cwd=finished_run.parent)
    assert (result.returncode, result.stdout, result.stderr) == (0, "on-a-cluster\n", "")
    run = finished_run.parent / "on-a-cluster"
    here = [line["weights_checksum"] for line in metrics(finished_run)]
    assert [line["weights_checksum"] for line in metrics(run)] == here
