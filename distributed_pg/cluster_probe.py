"""Find out whether a cluster answers: Ray itself would wait for two minutes, and then exit."""

import os
import signal
import socket
import subprocess
import sys
import threading

from distributed_pg import ray_private
from distributed_pg.errors import RunError, one_line

_REFUSED = "Unauthenticated"
"""What Ray says where a cluster does not take the token."""
_ADVICE = (
    "it asks for a token, and the one here is missing or another one; copy the cluster's "
    "~/.ray/auth_token, or set RAY_AUTH_TOKEN"
)
ANSWER_SECONDS = 20.0
"""How long a cluster may take to answer before we give up."""


def check_cluster_answers(address: str) -> None:
    """Find out in another process: where nobody answers, ray.init() takes two minutes and exits."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5.0).close()
        except (OSError, UnicodeError) as error:
            raise RunError(f"address: nobody answers at {address} ({error})") from None
    reason = _reason_not_to_join(address)
    if reason == _ADVICE and _show_token():
        reason = _reason_not_to_join(address)
    if reason is not None:
        raise RunError(f"address: cannot join the Ray cluster at {address}: {reason}")


def _reason_not_to_join(address: str) -> str | None:
    """Have another process join the cluster; why it could not, in one line, or None."""
    connect = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"
    command = [sys.executable, "-c", connect, address]
    said = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as probe:  # noqa: S603
        limit = threading.Timer(ANSWER_SECONDS, probe.kill)
        limit.start()
        for line in probe.stderr or ():
            said += line
            if _REFUSED in line:  # Ray would go on trying
                probe.kill()
        limit.cancel()
    if probe.returncode == 0:
        return None
    if _REFUSED not in said and probe.returncode == -signal.SIGKILL:
        return f"no answer within {ANSWER_SECONDS:g} s"
    return _reason_in(said)


def _reason_in(stderr: str) -> str:
    """Why another process could not join a cluster, in one line."""
    if _REFUSED in stderr:
        return _ADVICE
    _, mismatch, versions = stderr.partition("Version mismatch: ")
    if mismatch:
        return one_line(mismatch + versions)
    return (stderr.strip().splitlines() or ["no reason given"])[-1]


def _show_token() -> bool:
    """Authenticate with the user's token from now on; False if there is none that was not shown.

    Ray does so by itself only for "auto". Where a cluster does not ask for it, it must not be done:
    this process would ask the cluster's workers for it.
    """
    if not ray_private.has_token() or "RAY_AUTH_MODE" in os.environ:
        return False
    os.environ["RAY_AUTH_MODE"] = "token"
    ray_private.reread_environment()
    return True
