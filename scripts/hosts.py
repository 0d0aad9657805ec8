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
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from host_network import unavailable
from host_rig import Rig

from distributed_pg.errors import RunError, UsageError


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
