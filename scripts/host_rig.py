"""A rig: several hosts on one switch, made of Linux namespaces on this machine.

A host is a set of namespaces with its own address on the rig's switch, its own processes, host
name, ``/tmp``, ``/run``, ``/dev/shm`` and home, and an SSH server. ``hosts.py`` is its command.
"""

import contextlib
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import host_network
from host_network import NAMESPACES, ip, is_init, namespaces, pids, run, search_path, until

from distributed_pg.errors import RunError, UsageError

NAME = re.compile(r"[a-z][a-z0-9]{0,10}")
"""Name of a rig: part of the name of a network interface, which has at most 15 characters."""
CHECKOUT = Path(__file__).resolve().parent.parent
SHARED = (CHECKOUT, Path(sys.prefix), Path(sys.base_prefix))
"""Folders that every host must see, even if they lie in the machine's /tmp."""

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
        reason = host_network.unavailable()
        if reason is not None:
            raise RunError(reason)
        if self._record.exists() or self._switch in namespaces():
            raise RunError(f"rig {self.name} exists already; remove it: down --state {self.state}")
        network = host_network.free_network() if subnet is None else host_network.network_in(subnet)
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
        ip("netns", "add", netns)
        cable = ("type", "veth", "peer", "name", "eth0", "netns", netns)
        ip("-n", self._switch, "link", "add", "name", name, *cable)
        ip("-n", self._switch, "link", "set", "dev", name, "master", "switch", "up")
        ip("-n", netns, "address", "add", f"{address}/{network.prefixlen}", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", netns, "link", "set", "dev", device, "up")
        # The gateway forwards nothing, but Ray uses the address with a route to the internet.
        ip("-n", netns, "route", "add", "default", "via", str(network[-2]))
        self._start(name)
        return self.host(name)

    def kill(self, name: str) -> None:
        """Power off a host for good: it falls silent and all its processes end."""
        self.partition(name)  # first, or its kernel would close its connections to the others
        self._kill(self._netns(name))

    def partition(self, name: str) -> None:
        """Cut a host off from all others; its processes continue."""
        ip("-n", self._switch, "link", "set", "dev", self.host(name).name, "down")

    def heal(self, name: str) -> None:
        """Undo :meth:`partition`."""
        ip("-n", self._switch, "link", "set", "dev", self.host(name).name, "up")

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
        return pids(self._netns(name))

    def status(self, name: str) -> str:
        """``up``, ``cut off`` or ``dead``."""
        if not self.pids(self.host(name).name):
            return "dead"
        (link,) = json.loads(ip("-n", self._switch, "-json", "link", "show", "dev", name))
        return "up" if "UP" in link["flags"] else "cut off"

    def down(self) -> None:
        """Remove the rig's processes, network and files.

        Raises:
            RunError: the folder holds no rig, and is left alone.
        """
        if self.state.exists() and not self._record.exists():
            raise RunError(f"--state: {self.state} holds no rig")
        for netns in namespaces():
            if netns == self._switch or re.fullmatch(self._netns(r"h\d+"), netns):
                self._kill(netns)
                ip("netns", "delete", netns)
        # The kernel removes their interfaces, and the other ends, slightly later.
        if not until(lambda: not Path("/sys/class/net", self._interface).exists()):
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
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(path)])
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
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "name", "switch", "type", "bridge")
        ip("-n", self._switch, "link", "set", "dev", "switch", "up")
        cable = ("type", "veth", "peer", "name", "machine", "netns", self._switch)
        ip("link", "add", "name", self._interface, *cable)
        ip("-n", self._switch, "link", "set", "dev", "machine", "master", "switch", "up")
        ip("address", "add", f"{network[-2]}/{network.prefixlen}", "dev", self._interface)
        ip("link", "set", "dev", self._interface, "up")

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
                env={**os.environ, "PATH": search_path()},
                check=True,
            )
        if not until(lambda: host_network.ssh_answers(host.address)):
            lines = log.read_text().strip().splitlines() or ["no output"]
            raise RunError(
                f"host {name} does not answer after {host_network.DEADLINE:.0f} s: {lines[-1]}"
            )

    def _kill(self, netns: str) -> None:
        # When a host's first process dies, all its others do.
        for pid in sorted(pids(netns), key=is_init, reverse=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not until(lambda: not pids(netns)):
            raise RunError(f"processes of {netns} do not end: {pids(netns)}")


def _shared() -> list[Path]:
    """The folders that the hosts' own /tmp would hide, outermost first."""
    return sorted({path for path in SHARED if path.is_relative_to("/tmp")})  # noqa: S108
