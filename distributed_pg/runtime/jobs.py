"""Runs training as a job on a Ray cluster, through the cluster's dashboard.

Needs only access to the dashboard, directly or through a tunnel. It sets environment variables, so
the process should do nothing else.
"""

import asyncio
import os
import re
import shlex
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from distributed_pg.errors import RunError, one_line, writing
from distributed_pg.runtime import _ray_private
from distributed_pg.runtime.causes import first_sentence, last_line
from distributed_pg.storage.checkpoint_files import CHECKPOINTS
from distributed_pg.system_info import PACKAGE

ANSWER_SECONDS = 15.0
"""Time limit for an answer of the dashboard."""
LOOK_SECONDS = 10.0
"""Time between checks that the dashboard still answers, while following a log."""
SAVE_SECONDS = 300
"""Time that a stopped job has to save before Ray kills it."""
FETCHED = r"config\.json|metrics\.jsonl|checkpoints/[\w-]+\.safetensors|tensorboard/events\.[\w.-]+"
"""The files of a run, as paths in its folder."""
_TOKEN_FILE = Path.home() / ".ray" / "auth_token"
_NOT_FETCHED = "the run is not fetched: "

# Like `python3 -m distributed_pg`, but without searching the current folder, which may contain
# another copy.
RUN = (
    "import sys; sys.path[:] = filter(None, sys.path); import runpy; "
    "runpy.run_module('distributed_pg', run_name='__main__', alter_sys=True)"
)
TRAIN = f'cd / && exec python3 -c "{RUN}" train {{flags}} --address auto'
# Ray's dashboard serves the files in a node's log folder and follows links there. The job's log,
# which is the standard output of this script, is in that folder.
TRAIN_AND_KEEP = f"""\
run="$HOME/distributed_pg_runs/{{job}}"; logs="$(dirname "$(readlink /proc/$$/fd/1)")"
mkdir -p "$run" && ln -sn "$run" "$logs/{{link}}" || exit
{TRAIN} --run-dir "$run"
"""


class Dashboard(JobSubmissionClient):
    """Client for a cluster's dashboard, with time limits.

    Args:
        url: the dashboard's URL.

    Raises:
        RunError: nothing answers at ``url``, it is not a Ray dashboard, or it rejects the token.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        _set_environment(url)
        with self._errors():
            try:
                super().__init__(url)
            except (RuntimeError, LookupError, requests.HTTPError, requests.JSONDecodeError) as e:
                raise RunError(f"{url} is not a usable Ray dashboard: {one_line(e)}") from e

    def submit(self, job: str, flags: Sequence[str], location: str | Path | None) -> None:
        """Start a job that trains with this process's copy of the package.

        Args:
            job: a new name for the job.
            flags: the flags of ``train``.
            location: the run's location in these flags; None: keep it on the head node.

        Raises:
            RunError: the dashboard cannot be reached or refuses the job.
        """
        entrypoint = TRAIN_AND_KEEP if location is None else TRAIN
        with self._errors():
            self.submit_job(
                entrypoint=entrypoint.format(job=job, link=_link(job), flags=shlex.join(flags)),
                submission_id=job,
                runtime_env={
                    "py_modules": [str(PACKAGE)],
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(SAVE_SECONDS)},
                },
                metadata={"run_dir": str(location or "")},
            )

    def job(self, job: str) -> JobDetails:
        """Get the details of a job.

        Raises:
            RunError: there is no such job, or it was not submitted by :meth:`submit`.
        """
        with self._errors():
            try:
                details = self.get_job_info(job)
            except RuntimeError as error:
                if "status code 404" in str(error):
                    raise RunError(f"there is no job {job} at {self.url}") from None
                raise
        if "run_dir" not in (details.metadata or {}):
            raise RunError(f"job {job} was not submitted by distributed-pg submit")
        return details

    def stop(self, job: str) -> None:
        """Tell a job to save and stop.

        Raises:
            RunError: the dashboard cannot be reached.
        """
        with self._errors():
            self.stop_job(job)

    def follow(self, job: str, show: Callable[[str], None]) -> None:
        """Follow a job's log from the beginning until the job ends.

        Args:
            job: the job's name.
            show: called with each piece of the log.

        Raises:
            RunError: the connection is lost.
        """
        with self._errors("connection lost: "):
            asyncio.run(self._follow(job, show))

    def run_files(self, details: JobDetails) -> list[str]:
        """Paths of a run's files, relative to its folder on the head node; empty if there is none.

        Raises:
            RunError: the dashboard cannot be reached.
        """
        if details.driver_node_id is None:
            return []
        folder, found = _link(str(details.submission_id)), []
        for pattern in ("*", "checkpoints/*", "tensorboard/*"):
            query = {"node_id": details.driver_node_id, "glob": f"{folder}/{pattern}"}
            with self._errors(_NOT_FETCHED):
                answer = self._do_request("GET", f"/api/v0/logs?{urlencode(query)}")
                if answer.status_code != requests.codes.ok:
                    self._raise_error(answer)
                for names in answer.json()["data"]["result"].values():
                    found += [name.removeprefix(f"{folder}/") for name in names]
        run = sorted(name for name in found if re.fullmatch(FETCHED, name))
        return run if "config.json" in run else []

    def fetch(self, details: JobDetails, names: Sequence[str], out: Path) -> None:
        """Fetch a run from the head node, completely or not at all.

        Args:
            details: the job.
            names: paths from :meth:`run_files`.
            out: the destination, empty or missing; its parent folder exists.

        Raises:
            RunError: the connection is lost, or the files cannot be written.
        """
        folder = _link(str(details.submission_id))
        with (
            writing(f"{out}:"),
            tempfile.TemporaryDirectory(dir=out.parent, prefix=".fetch-") as temporary,
        ):
            run = Path(temporary) / "run"
            (run / CHECKPOINTS).mkdir(parents=True)
            for name in names:
                (run / name).parent.mkdir(exist_ok=True)
                self._fetch(str(details.driver_node_id), f"{folder}/{name}", run / name)
            run.rename(out)

    def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> requests.Response:
        return super()._do_request(method, endpoint, timeout=ANSWER_SECONDS, **kwargs)

    @contextmanager
    def _errors(self, begin: str = "") -> Iterator[None]:
        """Turn exceptions in the ``with`` block into one-line RunErrors starting with ``begin``."""
        try:
            yield
        except AuthenticationError as error:
            reason = first_sentence(error.message)
            raise RunError(
                f"{begin}{self.url}: {reason}; the cluster's token belongs in {_TOKEN_FILE}, or in "
                "RAY_AUTH_TOKEN"
            ) from error
        except (requests.RequestException, aiohttp.ClientError, ConnectionError) as error:
            raise RunError(f"{begin}{_no_answer(self.url, one_line(error, 200))}") from error
        except RuntimeError as error:
            raise RunError(f"{begin}{self.url}: {one_line(error)}") from error

    async def _follow(self, job: str, show: Callable[[str], None]) -> None:
        shown = 0

        async def show_log() -> None:
            nonlocal shown
            async for text in self.tail_job_logs(job):
                show(text)
                shown += 1

        log = asyncio.create_task(show_log())
        while not log.done():
            # A silently lost connection is only noticed by a request.
            details, before = await asyncio.to_thread(self.get_job_info, job), shown
            await asyncio.wait({log}, timeout=LOOK_SECONDS)
            if details.status.is_terminal() and not log.done() and shown == before:
                raise ConnectionError("the job has ended, its log has not")
        log.result()
        if not self.get_job_info(job).status.is_terminal():
            raise ConnectionError("the log ended before the job")

    def _fetch(self, node: str, name: str, path: Path) -> None:
        """Copy the file ``name`` in the node's log folder to ``path``."""
        # The dashboard's time limit covers the whole file.
        query = {"node_id": node, "filename": name, "lines": -1, "timeout": 86400}
        with (
            self._errors(_NOT_FETCHED),
            requests.get(
                f"{self._address}/api/v0/logs/file?{urlencode(query)}",
                headers=self._headers,
                stream=True,
                timeout=ANSWER_SECONDS,
            ) as answer,
            path.open("wb") as file,
        ):
            if answer.status_code != requests.codes.ok:
                self._raise_error(answer)
            for part in answer.iter_content(2**20):
                file.write(part)


def failure(details: JobDetails) -> str | None:
    """Why a job failed, in one line; None if it did not fail."""
    if details.status != JobStatus.FAILED:
        return None
    code = details.driver_exit_code  # None if the job did not start
    exit_code = "" if code is None else f" (exit code {code})"
    # Ray's own line may follow the output of a short job.
    header = f"Running entrypoint for job {details.submission_id}: {details.entrypoint}"
    output = last_line((details.message or "").replace(header, "")) or "nothing"
    return f"job {details.submission_id} failed{exit_code}; its last output: {output}"


def _no_answer(url: str, reason: str) -> str:
    """The message for a dashboard that does not answer, with what to do about it."""
    # Ray's own reason says no more than the address once again.
    said = "" if url in reason else f" ({reason})"
    tunnel = "; ray dashboard CLUSTER.yaml opens a tunnel to it" if is_loopback(url) else ""
    return f"nobody answers at {url}{said}{tunnel}"


def _link(job: str) -> str:
    """The name of the link to a job's run in the head node's log folder."""
    return f"distributed_pg-{job}"


def _set_environment(url: str) -> None:
    """Make Ray's client use ``url`` unchanged and send the user's token."""
    # Ray's commands send a token whenever there is one; its job client only in this mode.
    token_given = os.environ.get("RAY_AUTH_TOKEN") or "RAY_AUTH_TOKEN_PATH" in os.environ
    if token_given or _TOKEN_FILE.exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        _ray_private.reread_environment()
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)
    if is_loopback(url):
        # A proxy cannot reach this machine's loopback address and must not see the token.
        # All requests of this process go to the dashboard.
        os.environ |= {"no_proxy": "*", "NO_PROXY": "*"}


def is_loopback(url: str) -> bool:
    """Whether the host of ``url`` is this machine's loopback address, in any notation."""
    try:
        host = (urlsplit(url).hostname or "").removesuffix(".")
        if host == "localhost" or host.endswith(".localhost"):
            return True
        addresses = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):  # a host name, or no valid address
        return False
    return all(ip_address(address[0]).is_loopback for *_, address in addresses)
