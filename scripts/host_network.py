"""What hosts are made of: this machine's network namespaces, processes and addresses."""

import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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
NAMESPACES = ("--mount", "--pid", "--fork", "--mount-proc", "--uts", "--ipc")
TRIAL = """
mount -t tmpfs none /dev/shm
ip link add name one type veth peer name two
ip link add name three type bridge
"""
"""The operations a host needs permission for, tried in temporary namespaces."""


def unavailable() -> str | None:
    """Say why this machine cannot run hosts; None if it can."""
    if not sys.platform.startswith("linux"):
        return "hosts are made of Linux namespaces"
    if os.geteuid() != 0:
        return "only root can make hosts"
    missing = [program for program in PACKAGES if shutil.which(program, path=search_path()) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[program] for program in missing}))
        return f"{', '.join(missing)} not found: apt-get install {packages}"
    try:
        run(["unshare", "--net", *NAMESPACES, "sh", "-ec", TRIAL])
    except RunError as error:
        return f"namespaces are not permitted here: {error}"
    return None


def search_path() -> str:
    """The search path for programs; not every user's path has the system folders."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def run(command: Sequence[str]) -> str:
    """Run a program and return its output.

    Raises:
        RunError: it failed; the message has what it said.
    """
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": search_path()},
    )
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise RunError(f"{command[0]} failed: {reason}")
    return done.stdout


def ip(*arguments: str) -> str:
    """Run ``ip``; see :func:`run`."""
    return run(["ip", *arguments])


def namespaces() -> list[str]:
    """Names of this machine's network namespaces."""
    return [line.split()[0] for line in ip("netns", "list").splitlines()]


def pids(netns: str) -> list[int]:
    """The processes in a network namespace, by their ids on this machine."""
    return [int(pid) for pid in ip("netns", "pids", netns).split()]


def is_init(pid: int) -> bool:
    """Whether a process is the first in its namespace."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended just now
        return False
    numbers = re.search(r"^NSpid:(.*)$", status, flags=re.MULTILINE)
    return numbers is not None and numbers.group(1).split()[1:] == ["1"]


def network_in(subnet: str) -> ipaddress.IPv4Network:
    """The network of a subnet such as ``10.77.0.0/24``.

    Raises:
        UsageError: it is invalid, too small or in use here.
    """
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


def free_network() -> ipaddress.IPv4Network:
    """A network that this machine has no route to."""
    taken = _networks()
    for third in range(256):
        network = ipaddress.IPv4Network(f"10.77.{third}.0/24")
        if not any(network.overlaps(other) for other in taken):
            return network
    raise RunError("10.77.0.0/16 has no free subnet; name another with --subnet")


def _networks() -> list[ipaddress.IPv4Network]:
    """The networks this machine has routes to, except the default route."""
    routes = json.loads(ip("-json", "-4", "route", "show"))
    return [ipaddress.IPv4Network(r["dst"]) for r in routes if r["dst"] != "default"]


def ssh_answers(address: str) -> bool:
    """Whether an SSH server answers at the address."""
    try:
        with socket.create_connection((address, 22), timeout=1.0) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:  # not yet
        return False


def until(condition: Callable[[], bool]) -> bool:
    """Wait for the condition; return whether it came true within :data:`DEADLINE`."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True
