"""Find out whether a Ray cluster can be joined, and if not, why.

Another process tries it: where nobody answers, or this machine is no node of the cluster,
``ray.init()`` takes minutes, and may end the process that calls it.
"""

import json
import os
import platform
import socket
import subprocess
import threading
from contextlib import suppress

import ray
from ray.exceptions import RayError

from distributed_pg.errors import RunError, one_line
from distributed_pg.own_code import own_python
from distributed_pg.runtime import _ray_private
from distributed_pg.runtime.causes import reason_in

ANSWER_SECONDS = 20.0
"""How long a cluster may take to answer before we give up."""
_BEGIN_SECONDS = 60.0
"""How long the process that tries may take to begin, on a machine that is busy."""
_TIMED_OUT = 75
"""Its exit code when there was no answer in time."""
_REFUSED = "Unauthenticated"
"""What Ray says where a cluster does not take the token."""
_ADVICE = (
    "it asks for a token, and the one here is missing or another one; copy the cluster's "
    "~/.ray/auth_token, or set RAY_AUTH_TOKEN"
)
_KILLED = -9  # by SIGKILL, which not every system has a name for
_NOT_A_NODE = ("Failed to connect to socket at address", "No node info found matching attributes")
"""What Ray says where the cluster answers, but none of its nodes can be reached on this machine."""
_MISMATCH = "Version mismatch: "
_PROBE = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, do not send the current folder
    # Seconds in which to find the cluster's node on this machine, and then to reach it; Ray would
    # look for a minute.
    "RAY_gcs_server_request_timeout_seconds": "8",
    "RAY_raylet_client_num_connect_attempts": "5",
}
"""Environment variables of the process that tries to join."""


def check_cluster_answers(address: str) -> None:
    """See that this process can join the cluster, and have it show the token if it has to.

    Raises:
        RunError: nobody answers at the address, or the cluster cannot be joined from here.
    """
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5.0).close()
        except (OSError, UnicodeError, ValueError, OverflowError) as error:
            raise RunError(f"address: nobody answers at {address} ({error})") from None
    reason = _reason_not_to_join(address)
    if reason == _ADVICE and _show_token():
        reason = _reason_not_to_join(address)
    if reason is not None:
        raise RunError(f"address: cannot join the Ray cluster at {address}: {reason}")


def join(address: str) -> None:
    """Say which versions the cluster runs, on standard output, and join it.

    For a process that does nothing else: it ends when that takes too long.
    """
    limit = threading.Timer(ANSWER_SECONDS, os._exit, [_TIMED_OUT])
    limit.daemon = True
    limit.start()
    if address != "auto":
        with suppress(RayError, TypeError, AttributeError):  # another Ray there, or here
            print(_ray_private.cluster_metadata(address), flush=True)  # noqa: T201
    ray.init(address=address, log_to_driver=False)


def _reason_not_to_join(address: str) -> str | None:
    """Have another process join the cluster; why it could not, in one line, or None."""
    command = own_python(
        "from distributed_pg.runtime.cluster_probe import join; join(sys.argv[1])", address
    )
    said = ""
    with subprocess.Popen(  # noqa: S603
        command,
        env=os.environ | _PROBE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as probe:
        limit = threading.Timer(_BEGIN_SECONDS + ANSWER_SECONDS, probe.kill)
        limit.start()
        for line in probe.stderr or ():
            said += line
            if _REFUSED in line:  # Ray would go on trying
                probe.kill()
        limit.cancel()
        versions = probe.stdout.read() if probe.stdout else ""
    if probe.returncode == 0:
        return None
    late = probe.returncode in (_TIMED_OUT, _KILLED)
    return _reason(address, said, late) + _other_versions(said, versions)


def _reason(address: str, said: str, late: bool) -> str:
    """Why another process could not join a cluster, in one line."""
    if _REFUSED in said:
        return _ADVICE
    if _MISMATCH in said:
        return one_line(_MISMATCH + said.partition(_MISMATCH)[2])
    if any(sign in said for sign in _NOT_A_NODE):
        return (
            f"it answers, but this machine is not one of its nodes; make it one with `ray start "
            f"--address={address}`, or have the cluster run the training as a job "
            "(distributed-pg submit)"
        )
    return f"no answer within {ANSWER_SECONDS:g} s" if late else reason_in(said)


def _other_versions(said: str, printed: str) -> str:
    """That the cluster runs another Ray or Python, where it does and Ray did not say so."""
    try:
        cluster = json.loads(printed)
        there = cluster["ray_version"], cluster["python_version"]
    except (ValueError, KeyError, TypeError):  # it did not say
        return ""
    here = ray.__version__, platform.python_version()
    if there == here or _MISMATCH in said:
        return ""
    names = "Ray {} on Python {}"
    return f"; it runs {names.format(*there)}, and here is {names.format(*here)}"


def _show_token() -> bool:
    """Authenticate with the user's token from now on; False if there is none that was not shown.

    Ray does so by itself only for "auto". Where a cluster does not ask for it, it must not be done:
    this process would ask the cluster's workers for it.
    """
    if not _ray_private.has_token() or "RAY_AUTH_MODE" in os.environ:
        return False
    os.environ["RAY_AUTH_MODE"] = "token"
    _ray_private.reread_environment()
    return True
