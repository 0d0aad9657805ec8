"""Runs several hosts on one machine, to test Ray across machines.

A host is a set of Linux namespaces with its own address on the rig's switch, its own processes,
host name, ``/tmp``, ``/run``, ``/dev/shm`` and home, and an SSH server. It shares the rest of the
machine's file system, including this checkout and its Python environment. Needs root and the Debian
packages ``iproute2``, ``openssh-server`` and ``rsync`` (which ``ray up`` uses):

    python scripts/hosts.py up 3
    python scripts/hosts.py run h1 hostname
    python scripts/hosts.py partition h2     # and heal h2, kill h3, add, status
    python scripts/hosts.py down

``--state DIR`` holds the rig's files. The folder's name is also the rig's, and rigs with different
names can coexist. A host's ``/tmp`` is ``DIR/HOST/tmp`` and its home is its own ``/tmp/home``, so
that Ray's token (``~/.ray/auth_token``) must be copied to each host, as on real machines. All hosts
share a private key, ``~/.ssh/id_ed25519``. They reach each other and this machine, nothing else.
"""

import argparse
import contextlib
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distributed_pg.errors import RunError, UsageError

DEADLINE = 20.0
"""Seconds within which a host must answer, or its processes must be gone."""
POLL = 0.02
PACKAGES = {
    "ip": "iproute2",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
    "unshare": "util-linux",
}
"""Debian package of each program."""
NAME = re.compile(r"[a-z][a-z0-9]{0,10}")
"""Name of a rig: part of the name of a network interface, which has at most 15 characters."""
CHECKOUT = Path(__file__).resolve().parent.parent
SHARED = (CHECKOUT, Path(sys.prefix), Path(sys.base_prefix))
"""Folders that every host must see, even if they lie in the machine's /tmp."""

NAMESPACES = ("--mount", "--pid", "--fork", "--mount-proc", "--uts", "--ipc")
TRIAL = """
mount -t tmpfs none /dev/shm
ip link add name one type veth peer name two
ip link add name three type bridge
"""
"""The operations a host needs permission for, tried in temporary namespaces."""
START = """
state=$1 host=$2
shift 2
cd /
hostname "$host"
for path; do mount --rbind "$path" "$state/$host$path"; done
for file in "$state"/etc/*; do
    if [ -e "/etc/${file##*/}" ]; then mount --bind "$file" "/etc/${file##*/}"; fi
done
mount -t tmpfs -o mode=755 none /run
mkdir /run/sshd
mount -t tmpfs none /dev/shm
mount --rbind "$state/$host/tmp" /tmp
exec "$(command -v sshd)" -D -e
"""
"""Script of a host's first process. It mounts /tmp last, since the state may lie in it."""
SSHD_CONFIG = """\
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
AuthenticationMethods publickey
StrictModes no
UsePAM no
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
"""
SSH_CONFIG = """\
Host *
  User root
  IdentityFile "{key}"
  IdentitiesOnly yes
  UserKnownHostsFile "{known_hosts}"
  BatchMode yes
  ConnectTimeout 10
  ServerAliveInterval 5
  LogLevel ERROR
"""


@dataclass(frozen=True)
class Host:
    """One host of a rig."""

    name: str
    address: str
    tmp: Path
    """The host's /tmp as seen from this machine."""


class Rig:
    """Some hosts on one switch.

    Args:
        state: folder for the rig's files; its name is the rig's.

    Raises:
        UsageError: the folder's name is not a valid name for a rig.
    """

    def __init__(self, state: Path) -> None:
        self.state = state.absolute()
        self.name = state.name
        self._interface = f"rig-{self.name}"
        self._switch = self._netns("switch")
        self._record = self.state / "rig.json"
        self.ssh_config = self.state / "ssh_config"
        if not NAME.fullmatch(self.name):
            raise UsageError(
                f"--state: {self.name!r} names a rig and must be 1 to 11 small letters and digits, "
                "a letter first"
            )

    def up(self, count: int, subnet: str | None = None) -> list[Host]:
        """Create the switch and the hosts, and wait until all answer.

        Args:
            count: number of hosts.
            subnet: their subnet, such as ``10.77.0.0/24``; None selects a free one.

        Returns:
            The hosts.

        Raises:
            RunError: this machine cannot run hosts, or the rig exists.
            UsageError: the subnet is invalid or in use, or too small for ``count``.
        """
        reason = unavailable()
        if reason is not None:
            raise RunError(reason)
        if self._record.exists() or self._switch in _namespaces():
            raise RunError(f"rig {self.name} exists already; remove it: down --state {self.state}")
        network = _free_network() if subnet is None else _network(subnet)
        if not 1 <= count <= network.num_addresses - 3:
            raise UsageError(f"hosts: {count} is not from 1 to {network.num_addresses - 3}")
        try:
            self.state.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise RunError(f"--state: {self.state} cannot be made: {error.strerror}") from error
        self._write(str(network), {})
        try:
            self._make_keys()
            self._make_switch(network)
            return [self.add() for _ in range(count)]
        except BaseException:
            self.down()
            raise

    def add(self) -> Host:
        """Create another host and wait until it answers."""
        subnet, addresses = self._read()
        network = ipaddress.IPv4Network(subnet)
        number = len(addresses) + 1
        if number > network.num_addresses - 3:
            raise RunError(f"{subnet} has no address for another host")
        name, address = f"h{number}", str(network[number])
        addresses[name] = address
        self._write(subnet, addresses)
        self._make_files(name)
        netns = self._netns(name)
        _ip("netns", "add", netns)
        cable = ("type", "veth", "peer", "name", "eth0", "netns", netns)
        _ip("-n", self._switch, "link", "add", "name", name, *cable)
        _ip("-n", self._switch, "link", "set", "dev", name, "master", "switch", "up")
        _ip("-n", netns, "address", "add", f"{address}/{network.prefixlen}", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", netns, "link", "set", "dev", device, "up")
        # The gateway forwards nothing, but Ray uses the address with a route to the internet.
        _ip("-n", netns, "route", "add", "default", "via", str(network[-2]))
        self._start(name)
        return self.host(name)

    def kill(self, name: str) -> None:
        """Power off a host for good: it falls silent and all its processes end."""
        self.partition(name)  # first, or its kernel would close its connections to the others
        self._kill(self._netns(name))

    def partition(self, name: str) -> None:
        """Cut a host off from all others; its processes continue."""
        _ip("-n", self._switch, "link", "set", "dev", self.host(name).name, "down")

    def heal(self, name: str) -> None:
        """Undo :meth:`partition`."""
        _ip("-n", self._switch, "link", "set", "dev", self.host(name).name, "up")

    def run(self, name: str, command: str) -> "subprocess.CompletedProcess[str]":
        """Run a shell command on a host and capture its output; no exit status is an error."""
        return subprocess.run(self.ssh(name, command), capture_output=True, text=True, check=False)

    def ssh(self, name: str, command: str | None = None) -> list[str]:
        """Return the command that logs in to a host, or runs a shell command there."""
        words = ["ssh", "-F", str(self.ssh_config), self.host(name).name]
        return words if command is None else [*words, "--", command]

    def hosts(self) -> list[Host]:
        """All hosts ever created, dead ones included."""
        return [
            Host(name, address, self.state / name / "tmp")
            for name, address in self._read()[1].items()
        ]

    def host(self, name: str) -> Host:
        """Find a host by name.

        Raises:
            UsageError: there is no such host.
        """
        hosts = {host.name: host for host in self.hosts()}
        if name not in hosts:
            raise UsageError(f"no host {name!r} in rig {self.name}; it has {', '.join(hosts)}")
        return hosts[name]

    def pids(self, name: str) -> list[int]:
        """The processes of a host, by their ids on this machine."""
        return _pids(self._netns(name))

    def status(self, name: str) -> str:
        """``up``, ``cut off`` or ``dead``."""
        if not self.pids(self.host(name).name):
            return "dead"
        (link,) = json.loads(_ip("-n", self._switch, "-json", "link", "show", "dev", name))
        return "up" if "UP" in link["flags"] else "cut off"

    def down(self) -> None:
        """Remove the rig's processes, network and files.

        Raises:
            RunError: the folder holds no rig, and is left alone.
        """
        if self.state.exists() and not self._record.exists():
            raise RunError(f"--state: {self.state} holds no rig")
        for netns in _namespaces():
            if netns == self._switch or re.fullmatch(self._netns(r"h\d+"), netns):
                self._kill(netns)
                _ip("netns", "delete", netns)
        # The kernel removes their interfaces, and the other ends, slightly later.
        if not _until(lambda: not Path("/sys/class/net", self._interface).exists()):
            raise RunError(f"network interface {self._interface} does not go")
        if self.state.exists():
            shutil.rmtree(self.state)

    def _netns(self, host: str) -> str:
        return f"rig-{self.name}-{host}"

    def _read(self) -> tuple[str, dict[str, str]]:
        """The subnet, and the address of each host."""
        try:
            record = json.loads(self._record.read_text())
        except FileNotFoundError:
            raise RunError(f"--state: {self.state} holds no rig; make one with up") from None
        except ValueError as error:
            raise RunError(f"{self._record} is damaged ({error}); remove the rig: down") from None
        return record["subnet"], record["hosts"]

    def _write(self, subnet: str, addresses: dict[str, str]) -> None:
        self._record.write_text(json.dumps({"subnet": subnet, "hosts": addresses}, indent=1) + "\n")
        key, known_hosts = self.state / "key", self.state / "known_hosts"
        text = SSH_CONFIG.format(key=key, known_hosts=known_hosts)
        entries = [f"Host {name}\n  HostName {ip}\n" for name, ip in addresses.items()]
        self.ssh_config.write_text(text + "".join(entries))
        etc = self.state / "etc"
        etc.mkdir(exist_ok=True)
        lines = ["127.0.0.1 localhost", *(f"{ip} {name}" for name, ip in addresses.items())]
        # Written in place, because every host mounts this file.
        (etc / "hosts").write_text("\n".join(lines) + "\n")

    def _make_keys(self) -> None:
        """Create the keys and the files that all hosts have in /etc."""
        etc = self.state / "etc"
        ssh = etc / "ssh"
        ssh.mkdir()
        for path in (self.state / "key", ssh / "host_key"):
            _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(path)])
        (ssh / "authorized_keys").write_text((self.state / "key.pub").read_text())
        (ssh / "sshd_config").write_text(SSHD_CONFIG)
        (self.state / "known_hosts").write_text(f"* {(ssh / 'host_key.pub').read_text()}")
        machine = Path("/etc/passwd").read_text()
        root = "root:x:0:0:root:/tmp/home:/bin/bash"
        (etc / "passwd").write_text(re.sub(r"^root:.*$", root, machine, flags=re.MULTILINE))
        (etc / "shadow").write_text("root:*:::::::\n")  # no password, but not locked either
        (etc / "resolv.conf").write_text("nameserver 127.0.0.1\n")  # no server: fails at once

    def _make_switch(self, network: ipaddress.IPv4Network) -> None:
        """Create a bridge in its own namespace, where the machine's firewall does not apply."""
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "name", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "dev", "switch", "up")
        cable = ("type", "veth", "peer", "name", "machine", "netns", self._switch)
        _ip("link", "add", "name", self._interface, *cable)
        _ip("-n", self._switch, "link", "set", "dev", "machine", "master", "switch", "up")
        _ip("address", "add", f"{network[-2]}/{network.prefixlen}", "dev", self._interface)
        _ip("link", "set", "dev", self._interface, "up")

    def _make_files(self, host: str) -> None:
        """Create a host's /tmp with its home."""
        tmp = self.state / host / "tmp"
        for path in _shared():
            (tmp / path.relative_to("/tmp")).mkdir(parents=True, exist_ok=True)  # noqa: S108
        ssh = tmp / "home/.ssh"
        ssh.mkdir(parents=True)
        tmp.chmod(0o1777)
        shutil.copy(self.state / "key", ssh / "id_ed25519")
        programs = Path(sys.executable).parent
        (tmp / "home/.bashrc").write_text(f'export PATH="{programs}:$PATH"\n')

    def _start(self, name: str) -> None:
        host = self.host(name)
        enter = ["setsid", "--fork", "ip", "netns", "exec", self._netns(name)]
        script = ["sh", "-ec", START, "sh", str(self.state), name, *map(str, _shared())]
        log = self.state / name / "log"
        with log.open("wb") as file:
            subprocess.run(
                [*enter, "unshare", *NAMESPACES, *script],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, "PATH": _path()},
                check=True,
            )
        if not _until(lambda: _ssh_answers(host.address)):
            lines = log.read_text().strip().splitlines() or ["no output"]
            raise RunError(f"host {name} does not answer after {DEADLINE:.0f} s: {lines[-1]}")

    def _kill(self, netns: str) -> None:
        # When a host's first process dies, all its others do.
        for pid in sorted(_pids(netns), key=_is_init, reverse=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not _until(lambda: not _pids(netns)):
            raise RunError(f"processes of {netns} do not end: {_pids(netns)}")


def unavailable() -> str | None:
    """Say why this machine cannot run hosts; None if it can."""
    if not sys.platform.startswith("linux"):
        return "hosts are made of Linux namespaces"
    if os.geteuid() != 0:
        return "only root can make hosts"
    missing = [program for program in PACKAGES if shutil.which(program, path=_path()) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[program] for program in missing}))
        return f"{', '.join(missing)} not found: apt-get install {packages}"
    try:
        _run(["unshare", "--net", *NAMESPACES, "sh", "-ec", TRIAL])
    except RunError as error:
        return f"namespaces are not permitted here: {error}"
    return None


def _path() -> str:
    """The search path for programs; not every user's path has the system folders."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": _path()},
    )
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise RunError(f"{command[0]} failed: {reason}")
    return done.stdout


def _ip(*arguments: str) -> str:
    return _run(["ip", *arguments])


def _namespaces() -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines()]


def _pids(netns: str) -> list[int]:
    return [int(pid) for pid in _ip("netns", "pids", netns).split()]


def _is_init(pid: int) -> bool:
    """Whether a process is the first in its namespace."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended just now
        return False
    numbers = re.search(r"^NSpid:(.*)$", status, flags=re.MULTILINE)
    return numbers is not None and numbers.group(1).split()[1:] == ["1"]


def _shared() -> list[Path]:
    """The folders that the hosts' own /tmp would hide, outermost first."""
    return sorted({path for path in SHARED if path.is_relative_to("/tmp")})  # noqa: S108


def _network(subnet: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(subnet)
    except ValueError as error:
        raise UsageError(f"--subnet: {error}") from None
    if network.num_addresses < 8:
        raise UsageError(f"--subnet: {subnet} is too small; 10.77.0.0/24 would do")
    taken = next((other for other in _networks() if other.overlaps(network)), None)
    if taken is not None:
        raise UsageError(f"--subnet: {subnet} is in use here ({taken})")
    return network


def _free_network() -> ipaddress.IPv4Network:
    taken = _networks()
    for third in range(256):
        network = ipaddress.IPv4Network(f"10.77.{third}.0/24")
        if not any(network.overlaps(other) for other in taken):
            return network
    raise RunError("10.77.0.0/16 has no free subnet; name another with --subnet")


def _networks() -> list[ipaddress.IPv4Network]:
    """The networks this machine has routes to, except the default route."""
    routes = json.loads(_ip("-json", "-4", "route", "show"))
    return [ipaddress.IPv4Network(r["dst"]) for r in routes if r["dst"] != "default"]


def _ssh_answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1.0) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:  # not yet
        return False


def _until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 failed, 2 usage error."""
    arguments = _parser().parse_args(argv)
    try:
        reason = unavailable()
        if reason is not None:
            raise RunError(reason)
        return _do(Rig(arguments.state), arguments)
    except (UsageError, RunError) as error:
        print(f"hosts.py: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    default = Path(tempfile.gettempdir()) / "hosts"

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("--state", type=Path, default=default, help=f"the rig ({default})")
        return made

    up = command("up", "create hosts h1, h2 and so on, and wait until they answer")
    up.add_argument("count", type=int, help="number of hosts")
    up.add_argument("--subnet", help="their subnet (a free one in 10.77.0.0/16)")
    command("add", "create another host")
    for name, text in {
        "kill": "power off a host: it falls silent, and all its processes end",
        "partition": "cut a host off from the network",
        "heal": "undo partition",
    }.items():
        command(name, text).add_argument("host")
    run = command("run", "run a shell command on a host")
    run.add_argument("host")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="command", help="as with ssh")
    command("status", "show the state of the hosts")
    command("down", "remove everything")
    return parser


def _do(rig: Rig, arguments: argparse.Namespace) -> int:
    command: str = arguments.command
    if command == "run":
        return subprocess.call(rig.ssh(arguments.host, " ".join(arguments.words) or None))
    if command == "up":
        rig.up(arguments.count, arguments.subnet)
    elif command == "add":
        rig.add()
    elif command == "down":
        rig.down()
        return 0
    elif command != "status":
        getattr(rig, command)(arguments.host)
    for host in rig.hosts():
        print(f"{host.name:4} {host.address:15} {rig.status(host.name)}")
    print(f"Log in: ssh -F {rig.ssh_config} h1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
