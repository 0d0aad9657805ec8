"""Several hosts on one machine, and training on them: real SSH, real Ray, real faults."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import host_network
import host_rig
import psutil
import pytest
from command import DEADLINE, ROOT, distributed_pg, metrics, until
from host_network import unavailable
from host_rig import Rig
from hosts import main
from hosts_record import HEALTH, RAY_START

from distributed_pg.errors import RunError

RECORD = ROOT / "scripts" / "hosts_record.py"
NAME = f"t{os.getpid()}"

needs_hosts = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rig") / NAME)
    rig.up(3)
    yield rig
    rig.down()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Rig]:
    """Another rig, which is not up."""
    other = Rig(tmp_path / f"{NAME}b")
    yield other
    other.down()


def said(rig: Rig, host: str, command: str) -> str:
    done = rig.run(host, command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def reaches(rig: Rig, host: str, other: str) -> bool:
    """Whether a host gets through to the SSH server of another."""
    return rig.run(host, f"timeout 2 bash -c '< /dev/tcp/{other}/22'").returncode == 0


def first_process(rig: Rig, host: str) -> psutil.Process:
    """The one that takes all others of the host with it."""
    (pid,) = filter(host_network.is_init, rig.pids(host))
    return psutil.Process(pid)


def left_of(name: str) -> list[str]:
    """What there is on this machine of a rig."""
    found = [*Path("/run/netns").glob("*"), *Path("/sys/class/net").glob("*")]
    return [path.name for path in found if path.name.startswith(f"rig-{name}")]


@needs_hosts
def test_each_host_has_its_own_everything_but_the_checkout(rig: Rig) -> None:
    for host in rig.hosts():
        assert said(rig, host.name, "hostname") == host.name
        assert said(rig, host.name, "hostname -I") == host.address
        assert said(rig, host.name, "cat /proc/1/comm") == "sshd"
        assert said(rig, host.name, "python -c 'import sys; print(sys.prefix)'") == sys.prefix
        said(rig, host.name, "hostname | tee ~/mine > /dev/shm/mine")
    assert [(host.tmp / "home/mine").read_text() for host in rig.hosts()] == [
        "h1\n",
        "h2\n",
        "h3\n",
    ]
    assert said(rig, "h2", "cat /dev/shm/mine") == "h2"
    assert not (Path.home() / "mine").exists()
    assert "--address" in said(rig, "h1", "distributed-pg train --help")


@needs_hosts
def test_hosts_log_in_to_each_other_by_name(rig: Rig) -> None:
    ssh = "ssh -o StrictHostKeyChecking=no -o LogLevel=ERROR h3 hostname"
    assert said(rig, "h1", ssh) == "h3"


@needs_hosts
def test_files_are_copied_between_hosts_and_from_the_machine(rig: Rig, tmp_path: Path) -> None:
    options = "-o StrictHostKeyChecking=no -o LogLevel=ERROR"
    said(rig, "h1", f"echo secret > ~/token && scp {options} ~/token h2:copied")
    assert said(rig, "h2", "cat ~/copied") == "secret"
    config = ["-F", str(rig.ssh_config)]
    command = ["scp", *config, "h2:copied", str(tmp_path / "here")]  # as Rig.ssh
    subprocess.run(command, check=True, timeout=60)
    assert (tmp_path / "here").read_text() == "secret\n"
    get = f"echo 'get copied again' | sftp -b - {options} h2 && cat again"
    assert said(rig, "h1", get).endswith("secret")


@needs_hosts
def test_a_partition_cuts_one_host_off_and_leaves_its_processes(rig: Rig) -> None:
    init = first_process(rig, "h2")
    assert reaches(rig, "h1", "h2")
    rig.partition("h2")
    assert rig.status("h2") == "cut off"
    assert not reaches(rig, "h1", "h2")
    assert reaches(rig, "h1", "h3")
    rig.heal("h2")
    assert rig.status("h2") == "up"
    assert reaches(rig, "h1", "h2")
    assert init.is_running()
    assert init.pid in rig.pids("h2")


@needs_hosts
def test_a_killed_host_is_dead_and_another_can_be_added(rig: Rig) -> None:
    said(rig, "h3", "setsid sleep 1000 > /dev/null 2>&1 &")
    assert len(rig.pids("h3")) > 1
    rig.kill("h3")
    assert rig.pids("h3") == []
    assert [rig.status(host.name) for host in rig.hosts()] == ["up", "up", "dead"]
    assert not reaches(rig, "h1", "h3")
    added = rig.add()
    assert said(rig, "h1", f"getent hosts {added.name}").split() == [added.address, "h4"]
    assert reaches(rig, "h1", "h4")


@needs_hosts
def test_nothing_is_left_and_rigs_exist_side_by_side(rig: Rig, other: Rig) -> None:
    other.up(1)
    assert other.host("h1").address not in [host.address for host in rig.hosts()]
    init = first_process(other, "h1")
    assert left_of(other.name)
    other.down()
    assert left_of(other.name) == []
    assert not other.state.exists()
    init.wait(10)
    other.down()  # once more: nothing to do
    assert said(rig, "h1", "hostname") == "h1"


@needs_hosts
def test_a_rig_is_removed_when_making_it_fails(other: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_rig, "START", "echo the disk is on fire >&2; exit 1")
    monkeypatch.setattr(host_network, "DEADLINE", 0.5)
    with pytest.raises(RunError, match=r"host h1 does not answer after .*: the disk is on fire"):
        other.up(2)
    assert left_of(other.name) == []
    assert not other.state.exists()


@needs_hosts
def test_a_rig_whose_folder_is_gone_can_be_removed(other: Rig) -> None:
    other.up(1)
    shutil.rmtree(other.state)
    with pytest.raises(RunError, match="exists already"):
        other.up(1)
    other.down()
    assert left_of(other.name) == []


@needs_hosts
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("up 2", 1, "exists already; remove it: down --state"),
        ("kill h9", 2, "no host 'h9' in rig {name}; it has h1, h2, h3"),
        ("run nowhere ls", 2, "no host 'nowhere'"),
        ("status --state {tmp}/none", 1, "holds no rig; make one with up"),
        ("down --state {tmp}", 2, "names a rig and must be 1 to 11 small letters and digits"),
        ("down --state {tmp}/full", 1, "holds no rig"),
        ("up 0 --state {tmp}/a", 2, "hosts: 0 is not from 1 to 253"),
        ("up 9 --state {tmp}/a --subnet 10.9.0.0/29", 2, "hosts: 9 is not from 1 to 5"),
        ("up 1 --state {tmp}/a --subnet pong", 2, "--subnet: Expected 4 octets in 'pong'"),
        ("up 1 --state {tmp}/a --subnet 10.9.0.0/30", 2, "--subnet: 10.9.0.0/30 is too small"),
        ("up 1 --state {tmp}/a --subnet {subnet}", 2, "--subnet: {subnet} is in use here"),
    ],
)
def test_a_mistake_gets_one_line(
    rig: Rig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    code: int,
    message: str,
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").touch()
    subnet = json.loads((rig.state / "rig.json").read_text())["subnet"]
    values = {"tmp": str(tmp_path), "subnet": subnet, "name": rig.name}
    words = arguments.format(**values).split()
    if "--state" not in words:
        words[1:1] = ["--state", str(rig.state)]
    assert main(words) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("hosts.py: error: ")
    assert message.format(**values) in printed.err
    assert printed.err.count("\n") == 1
    assert (tmp_path / "full/precious").exists()
    assert rig.status("h1") == "up"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has these reasons")
def test_it_says_why_it_cannot_make_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("host_network.os.geteuid", lambda: 0)
    monkeypatch.setattr(host_network, "search_path", lambda: str(tmp_path))
    assert unavailable() == (
        "ip, ssh, sshd, ssh-keygen, rsync, unshare not found: "
        "apt-get install iproute2 openssh-client openssh-server rsync util-linux"
    )
    monkeypatch.setattr("host_network.os.geteuid", lambda: 1000)
    assert main(["up", "1", "--state", str(tmp_path / "a")]) == 1
    assert capsys.readouterr().err == "hosts.py: error: only root can make hosts\n"
    assert not (tmp_path / "a").exists()


@needs_hosts
@pytest.mark.exhaustive
@pytest.mark.slow
def test_training_on_hosts_that_go_and_come_ends_in_the_bits_of_a_local_run(tmp_path: Path) -> None:
    out = tmp_path / "hosts.json"
    command = [sys.executable, str(RECORD), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(out.read_text())
    assert record["same_bits_after_every_update"]
    assert record["weights_checksum"] == record["weights_checksum_of_the_local_run"]
    assert record["updates"] > 20
    assert [step.partition(":")[0] for step in record["seconds"]] == [
        "hosts",
        "ray up",
        "ray up",
        "train",
        "cut off briefly",
        "cut off briefly",
        "killed",
        "cut off",
        "cut off",
        "added",
        "added",
        "added",
        "train",
    ]
    assert record["episodes_played_again"] + record["second_workers"] > 0


SWEEP = "--frame-limit 2000 --batch-size 4 --hidden-units 8 --stop-episodes 60"


@needs_hosts
@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_sweep_over_two_hosts_of_which_one_dies_ends_in_the_bits_of_local_runs(
    other: Rig,
) -> None:
    other.up(2)
    head, worker = other.hosts()
    said(other, "h1", "ray get-auth-token --generate")
    file = "home/.ray/auth_token"
    (worker.tmp / file).parent.mkdir()
    shutil.copy(head.tmp / file, worker.tmp / file)
    said(other, "h1", f"{HEALTH} {RAY_START} --head --port=6379 --num-cpus=1 < /dev/null")
    said(other, "h2", f"{RAY_START} --address={head.address}:6379 --num-cpus=1 < /dev/null")
    command = f"distributed-pg sweep --address auto --seeds 0-1 {SWEEP} --run-dir /tmp/sweep"
    with subprocess.Popen(other.ssh("h1", command), stdout=subprocess.PIPE, text=True) as process:
        trials = [head.tmp / f"sweep/seed_{seed}" for seed in (0, 1)]
        until(lambda: all((t / "metrics.jsonl").exists() and metrics(t) for t in trials), process)
        other.kill("h2")
        output, _ = process.communicate(timeout=2 * DEADLINE)
    assert process.returncode == 0, output
    for seed, trial in enumerate(trials):
        alone = ("train", *SWEEP.split(), "--seed", str(seed), "--run-dir", f"alone-{seed}")
        assert distributed_pg(*alone, cwd=other.state).returncode == 0
        expected = [line["weights_checksum"] for line in metrics(other.state / f"alone-{seed}")]
        assert [line["weights_checksum"] for line in metrics(trial)] == expected
