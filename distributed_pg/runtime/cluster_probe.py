"""Finds out whether a Ray cluster can be joined, and if not, why.

A child process tries to join. If nothing answers, or this machine is not a node of the cluster,
``ray.init()`` takes minutes and may end the process that calls it.
"""

import json
import os
import platform
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from distributed_pg.errors import RunError, one_line
from distributed_pg.own_code import own_python
from distributed_pg.runtime import _ray_private
from distributed_pg.runtime.causes import reason_in
from distributed_pg.runtime.health import cluster_cpus

ANSWER_SECONDS = 20.0
"""Time limit for an answer of the cluster."""
_BEGIN_SECONDS = 60.0
"""Time that the child process may take to start, on a busy machine."""
_TIMED_OUT = 75
"""Exit code of the child process when there was no answer in time."""
_REFUSED = "Unauthenticated"
"""Part of Ray's message when a cluster rejects the token."""
_ADVICE = (
    "it requires a token, and the one here is missing or wrong; copy the cluster's "
    "~/.ray/auth_token, or set RAY_AUTH_TOKEN"
)
_KILLED = -9  # by SIGKILL, a name that not every system has
_NOT_A_NODE = ("Failed to connect to socket at address", "No node info found matching attributes")
"""Parts of Ray's messages when the cluster answers but has no reachable node on this machine."""
_MISMATCH = "Version mismatch: "
_CPUS = "cpus"
_PROBE = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, do not send the current folder
    # Seconds to find the cluster's node on this machine, then attempts to reach it; by default Ray
    # tries for a minute.
    "RAY_gcs_server_request_timeout_seconds": "8",
    "RAY_raylet_client_num_connect_attempts": "5",
}
"""Environment variables of the child process."""


def check_cluster_answers(address: str) -> int:
    """Check that this process can join the cluster, and enable authentication if required.

    Args:
        address: HOST:PORT, or ``"auto"``.

    Returns:
        The cluster's CPUs.

    Raises:
        RunError: nothing answers at the address, or the cluster cannot be joined from here.
    """
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5.0).close()
        except (OSError, UnicodeError, ValueError, OverflowError) as error:
            raise RunError(f"address: nobody answers at {address} ({error})") from None
    answer = _try_to_join(address)
    if answer == _ADVICE and _show_token():
        answer = _try_to_join(address)
    if isinstance(answer, str):
        raise RunError(f"address: cannot join the Ray cluster at {address}: {answer}")
    return answer


def join(address: str) -> None:
    """Print the cluster's metadata, including its versions, join it, and print its CPUs.

    For a process that does nothing else: it exits if joining takes too long.
    """
    limit = threading.Timer(ANSWER_SECONDS, os._exit, [_TIMED_OUT])
    limit.daemon = True
    limit.start()
    if address != "auto":
        # Another version of Ray may store something else, or elsewhere.
        with suppress(RayError, TypeError, AttributeError, ValueError):
            _say(json.loads(_ray_private.cluster_metadata(address)))
    ray.init(address=address, log_to_driver=False)
    _say({_CPUS: cluster_cpus()})
    limit.cancel()


def _say(facts: dict[str, Any]) -> None:
    """Print facts as one line of JSON, between whatever else is printed.

    A thread of Ray prints the errors that nodes report, such as the death of another node.
    """
    sys.stdout.write(f"\n{json.dumps(facts)}\n")
    sys.stdout.flush()


def facts_in(output: str) -> dict[str, Any]:
    """All that the child process said in its lines of JSON."""
    facts: dict[str, Any] = {}
    for line in output.splitlines():
        with suppress(ValueError):  # not one of these lines
            said = json.loads(line)
            if isinstance(said, dict):
                facts |= said
    return facts


def _try_to_join(address: str) -> int | str:
    """Try to join the cluster in a child process; its CPUs, or in one line why it failed."""
    command = own_python(
        "from distributed_pg.runtime.cluster_probe import join; join(sys.argv[1])", address
    )
    errors = ""
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
            errors += line
            if _REFUSED in line:  # Ray would keep trying
                probe.kill()
        limit.cancel()
        facts = facts_in(probe.stdout.read() if probe.stdout else "")
    if probe.returncode == 0:
        return int(facts[_CPUS])
    late = probe.returncode in (_TIMED_OUT, _KILLED)
    return _reason(address, errors, late) + _other_versions(errors, facts)


def _reason(address: str, errors: str, late: bool) -> str:
    """Why the child process could not join the cluster, in one line."""
    if _REFUSED in errors:
        return _ADVICE
    if _MISMATCH in errors:
        return one_line(_MISMATCH + errors.partition(_MISMATCH)[2])
    if any(sign in errors for sign in _NOT_A_NODE):
        return (
            f"it answers, but this machine is not one of its nodes; make it one with `ray start "
            f"--address={address}`, or have the cluster run the training as a job "
            "(distributed-pg submit)"
        )
    return f"no answer within {ANSWER_SECONDS:g} s" if late else reason_in(errors)


def _other_versions(errors: str, cluster: dict[str, Any]) -> str:
    """The cluster's versions of Ray and Python, if they differ and Ray did not report it."""
    if not {"ray_version", "python_version"} <= cluster.keys():  # unknown
        return ""
    there = cluster["ray_version"], cluster["python_version"]
    here = ray.__version__, platform.python_version()
    if there == here or _MISMATCH in errors:
        return ""
    names = "Ray {} on Python {}"
    return f"; it runs {names.format(*there)}, this process {names.format(*here)}"


def _show_token() -> bool:
    """Authenticate with the user's token from now on; False if there is none or it is in use.

    Ray does so by default only for "auto". It must not be done if the cluster requires no token,
    since this process would then require one of the cluster's workers.
    """
    if not _ray_private.has_token() or "RAY_AUTH_MODE" in os.environ:
        return False
    os.environ["RAY_AUTH_MODE"] = "token"
    _ray_private.reread_environment()
    return True
