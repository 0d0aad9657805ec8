"""Train on a running Ray cluster as a Ray job, follow its log, and fetch the run at the end.

Needs nothing of the cluster but its dashboard's address, be it through a tunnel:

    python scripts/submit.py --dashboard http://127.0.0.1:8265 --out runs/one --stop-minutes 15
    python scripts/submit.py --attach JOB --out runs/one
    python scripts/submit.py --stop JOB

All flags but those below are for ``distributed-pg train``. Ctrl-C leaves the job running. Exit
code: 0 the job ended well or was stopped, 1 it failed or the cluster cannot be reached, 2 wrong
usage, 130 Ctrl-C.
"""

import argparse
import asyncio
import logging
import os
import re
import secrets
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import urlencode, urlsplit

import distributed_pg
from distributed_pg.cli.main import parse_command
from distributed_pg.cli.train import TrainArgs
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError, one_line, plain, writing
from distributed_pg.runtime.causes import first_sentence, last_line
from distributed_pg.storage.checkpoint import load_checkpoint, weights_checksum
from distributed_pg.storage.checkpoint_files import CHECKPOINTS
from distributed_pg.storage.fresh_folder import RUNS
from distributed_pg.storage.run_dir import RunDir

# Ray's own commands send the token wherever there is one; its job client does so only if told,
# before Ray is imported. The address is the one that the user gives.
_TOKEN_FILE = Path.home() / ".ray" / "auth_token"
if os.environ.get("RAY_AUTH_TOKEN") or "RAY_AUTH_TOKEN_PATH" in os.environ or _TOKEN_FILE.exists():
    os.environ.setdefault("RAY_AUTH_MODE", "token")
for _name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
    os.environ.pop(_name, None)

import aiohttp  # noqa: E402
import requests  # noqa: E402
from ray.exceptions import AuthenticationError  # noqa: E402
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient  # noqa: E402

DASHBOARD = "http://127.0.0.1:8265"
ANSWER_SECONDS = 15.0
"""How long the dashboard may take to answer."""
LOOK_SECONDS = 10.0
"""How often to see, while a log is followed, whether the dashboard still answers."""
SAVE_SECONDS = 300
"""How long a job that is asked to stop may take before Ray kills it."""
FETCHED = r"config\.json|metrics\.jsonl|checkpoints/[\w-]+\.safetensors|tensorboard/events\.[\w.-]+"
"""What belongs to a run, as paths in its folder."""

# As `python3 -m distributed_pg` does, but without looking for it in the current folder first, where
# another one may be.
RUN = (
    "import sys; sys.path[:] = filter(None, sys.path); import runpy; "
    "runpy.run_module('distributed_pg', run_name='__main__', alter_sys=True)"
)
TRAIN = f'cd / && exec python3 -c "{RUN}" train {{flags}} --address auto'
# Ray's dashboard shows the files in a node's log folder, and those that links in it lead to. There
# lies the job's log, which is the standard output of this.
TRAIN_AND_KEEP = f"""\
run="$HOME/distributed_pg_runs/{{job}}"; logs="$(dirname "$(readlink /proc/$$/fd/1)")"
mkdir -p "$run" && ln -sn "$run" "$logs/{{link}}" || exit
{TRAIN} --run-dir "$run"
"""


class Dashboard(JobSubmissionClient):
    """A cluster's dashboard, which has to answer in time.

    Raises:
        RunError: nobody answers at ``url``, or not a Ray dashboard, or it refuses the token.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        if _is_loopback(url):
            # No proxy reaches this machine's loopback address, and none is to see the token.
            # Every request of this process is for the dashboard.
            os.environ |= {"no_proxy": "*", "NO_PROXY": "*"}
        with self.errors():
            try:
                super().__init__(url)
            except (RuntimeError, LookupError, requests.HTTPError, requests.JSONDecodeError) as e:
                raise RunError(f"{url} is not the dashboard of a Ray to use: {one_line(e)}") from e

    def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> requests.Response:
        return super()._do_request(method, endpoint, timeout=ANSWER_SECONDS, **kwargs)

    @contextmanager
    def errors(self, begin: str = "") -> Iterator[None]:
        """Turn what may be raised within into a RunError of one line; it starts with ``begin``."""
        try:
            yield
        except AuthenticationError as error:
            said = first_sentence(error.message)
            raise RunError(
                f"{begin}{self.url}: {said}; the cluster's token belongs in {_TOKEN_FILE}, or in "
                "RAY_AUTH_TOKEN"
            ) from error
        except (requests.RequestException, aiohttp.ClientError, ConnectionError) as error:
            reason = one_line(error, 200)
            raise RunError(f"{begin}nobody answers at {self.url} ({reason})") from error
        except RuntimeError as error:
            raise RunError(f"{begin}{self.url}: {one_line(error)}") from error

    def job(self, job: str) -> JobDetails:
        """What is known about a job of ours.

        Raises:
            RunError: there is none, or it is not one of this script.
        """
        with self.errors():
            try:
                details = self.get_job_info(job)
            except RuntimeError as error:
                if "status code 404" in str(error):
                    raise RunError(f"there is no job {job} at {self.url}") from None
                raise
        if "run_dir" not in (details.metadata or {}):
            raise RunError(f"job {job} was not submitted by {Path(__file__).name}")
        return details

    def follow(self, job: str) -> None:
        """Print a job's log from its beginning until the job ends.

        Raises:
            RunError: the connection is lost.
        """
        with self.errors("connection lost: "):
            asyncio.run(self._follow(job))

    async def _follow(self, job: str) -> None:
        printed = 0

        async def print_log() -> None:
            nonlocal printed
            async for text in self.tail_job_logs(job):
                print(plain(text), end="", flush=True)
                printed += 1

        log = asyncio.create_task(print_log())
        while not log.done():
            # A connection that is gone without a word shows only when something is asked.
            details, before = await asyncio.to_thread(self.get_job_info, job), printed
            await asyncio.wait({log}, timeout=LOOK_SECONDS)
            if details.status.is_terminal() and not log.done() and printed == before:
                raise ConnectionError("the job has ended, its log has not")
        log.result()
        if not self.get_job_info(job).status.is_terminal():
            raise ConnectionError("the log ended before the job")

    def files(self, node: str, folder: str) -> list[str]:
        """Paths in ``folder``, itself in the node's log folder, of the files that make up a run."""
        found: list[str] = []
        for pattern in ("*", "checkpoints/*", "tensorboard/*"):
            query = urlencode({"node_id": node, "glob": f"{folder}/{pattern}"})
            with self.errors("the run is not fetched: "):
                answer = self._do_request("GET", f"/api/v0/logs?{query}")
                if answer.status_code != requests.codes.ok:
                    self._raise_error(answer)
                for names in answer.json()["data"]["result"].values():
                    found += (name.removeprefix(f"{folder}/") for name in names)
        return sorted(name for name in found if re.fullmatch(FETCHED, name))

    def fetch(self, node: str, name: str, path: Path) -> None:
        """Copy the file ``name`` in the node's log folder to ``path``."""
        # The time limit there is for the whole file.
        query = urlencode({"node_id": node, "filename": name, "lines": -1, "timeout": 86400})
        with (
            self.errors("the run is not fetched: "),
            requests.get(
                f"{self._address}/api/v0/logs/file?{query}",
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


def _is_loopback(url: str) -> bool:
    """Whether the host of ``url`` is this machine's loopback address, in whatever spelling."""
    try:
        host = (urlsplit(url).hostname or "").removesuffix(".")
        if host == "localhost" or host.endswith(".localhost"):
            return True
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):  # a name, or nothing that can be an address
        return False
    return all(ip_address(address[0]).is_loopback for *_, address in found)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    logging.disable()  # what Ray's client has to tell; what fails is an exception
    try:
        arguments, flags = _parser().parse_known_args(argv)
        return _run(arguments, flags)
    except UsageError as error:
        print(f"submit.py: error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"submit.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dashboard", metavar="URL", default=DASHBOARD, help="default: %(default)s"
    )
    parser.add_argument("--out", type=Path, help="folder for the run; default: runs/JOB")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--attach", metavar="JOB", help="follow this job and fetch its run")
    either.add_argument("--stop", metavar="JOB", help="have this job save and stop")
    return parser


def _run(arguments: argparse.Namespace, flags: list[str]) -> int:
    url, job, out = arguments.dashboard, arguments.attach or arguments.stop, arguments.out
    if not re.match("https?://.", url):
        raise UsageError(f"--dashboard: {url!r} is not http://HOST:PORT")
    if job is not None and not re.fullmatch(r"[\w.-]+", job):
        raise UsageError(f"{job!r} is not a job")
    if job is not None and flags:
        raise UsageError(f"{flags[0]}: a job that exists keeps its settings")
    if arguments.stop is not None:
        if out is not None:
            raise UsageError("--out: --stop fetches nothing; --attach does")
        return _stop(Dashboard(url), job)
    if job is None:
        config = _checked(flags)
        job = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{config.preset}_{secrets.token_hex(2)}"
    out = _checked_out(out or RUNS / job)
    dashboard = Dashboard(url)
    try:
        if arguments.attach is None:
            _submit(dashboard, job, config, flags)
        else:
            job = dashboard.job(job).submission_id or job
        return _follow(dashboard, job, out)
    except KeyboardInterrupt:
        print(f"\nJob {job} is not affected.\n{_how_to_go_on(url, job, out)}", file=sys.stderr)
        raise


def _how_to_go_on(url: str, job: str, out: Path) -> str:
    command = [sys.executable, sys.argv[0], "--dashboard", url]
    attach = shlex.join([*command, "--attach", job, "--out", str(out)])
    return f"Attach: {attach}\nStop:   {shlex.join([*command, '--stop', job])}"


def _checked(flags: list[str]) -> TrainConfig:
    """The settings that ``distributed-pg train`` will have, checked as it does."""
    config = cast("TrainArgs", parse_command(["train", *flags])).config
    if config.address is not None:
        raise UsageError("--address: the job runs on the cluster of the dashboard; leave it out")
    for name in ("run_dir", "resume"):
        path = getattr(config, name)
        if path is not None and "://" not in str(path):
            raise UsageError(
                f"--{name.replace('_', '-')}: {path} is on this machine, where the cluster cannot "
                "reach it; --out is the folder to fetch the run to"
            )
    return config


def _checked_out(out: Path) -> Path:
    """The folder to fetch to, found to be free."""
    try:
        if any(out.iterdir()):
            raise UsageError(f"--out: {out} is not empty")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"--out: {out}: {error.strerror}") from None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out: {out} cannot be made ({error.strerror})") from None
    return out


def _submit(dashboard: Dashboard, job: str, config: TrainConfig, flags: list[str]) -> None:
    print(f"Submitting job {job}", flush=True)
    entrypoint = TRAIN_AND_KEEP if config.location is None else TRAIN
    with dashboard.errors():
        dashboard.submit_job(
            entrypoint=entrypoint.format(job=job, link=_link(job), flags=shlex.join(flags)),
            submission_id=job,
            runtime_env={
                "py_modules": [str(Path(distributed_pg.__file__).parent)],
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(SAVE_SECONDS)},
            },
            metadata={"run_dir": str(config.location or "")},
        )


def _link(job: str) -> str:
    return f"distributed_pg-{job}"


def _stop(dashboard: Dashboard, job: str) -> int:
    details = dashboard.job(job)
    if details.status.is_terminal():
        print(f"Job {job} has ended already: {details.status}")
        return 0
    with dashboard.errors():
        dashboard.stop_job(job)
    print(f"Job {job} is asked to save and stop.")
    return 0


def _follow(dashboard: Dashboard, job: str, out: Path) -> int:
    """Print the log to its end, and fetch the run."""
    try:
        dashboard.follow(job)
        details = dashboard.job(job)
        elsewhere = (details.metadata or {})["run_dir"]
        fetched = not elsewhere and _fetch(dashboard, job, details.driver_node_id, out)
    except RunError as error:
        again = _how_to_go_on(dashboard.url, job, out)
        raise RunError(f"{error}\nJob {job} is not affected.\n{again}") from error
    if fetched:
        _show(out)
    elif elsewhere:
        print(f"The run is in {elsewhere}")
    if details.status == JobStatus.FAILED:
        code = details.driver_exit_code  # none where the job did not begin
        how = "" if code is None else f" (exit code {code})"
        raise RunError(f"job {job} failed{how}; the last it said: {_last_line(details)}")
    return 0


def _last_line(details: JobDetails) -> str:
    """The last line of a failed job's log, or of the reason why it has none."""
    # What Ray writes into the log before the job begins may come after what a short job writes.
    begin = f"Running entrypoint for job {details.submission_id}: {details.entrypoint}"
    return last_line((details.message or "").replace(begin, "")) or "nothing"


def _fetch(dashboard: Dashboard, job: str, node: str | None, out: Path) -> bool:
    """Bring a run from the head node: all of it, or nothing. Returns whether there is one."""
    names = dashboard.files(node, _link(job)) if node else []
    if "config.json" not in names or node is None:
        print(f"Job {job} has no run: it ended before it began")
        return False
    print(f"Fetching {len(names)} files to {out}", flush=True)
    with (
        writing(f"{out}:"),
        tempfile.TemporaryDirectory(dir=out.parent, prefix=".fetch-") as temporary,
    ):
        run = Path(temporary) / "run"
        (run / CHECKPOINTS).mkdir(parents=True)
        for name in names:
            (run / name).parent.mkdir(exist_ok=True)
            dashboard.fetch(node, f"{_link(job)}/{name}", run / name)
        run.rename(out)
    return True


def _show(run: Path) -> None:
    """Say what was fetched, once the checksums in all checkpoints are found to be right."""
    newest = RunDir.open(run).newest_checkpoint()
    loaded = {path: load_checkpoint(path) for path in (run / CHECKPOINTS).glob("*.safetensors")}
    print(f"Weights checksum: {weights_checksum(loaded[newest].state.policy)}")
    print(f"Checkpoint: {newest}")
    print(f"Evaluate:   {sys.executable} -m distributed_pg evaluate {shlex.quote(str(run))}")


if __name__ == "__main__":
    sys.exit(main())
