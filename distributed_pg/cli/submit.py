"""``distributed-pg submit``."""

import logging
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from distributed_pg.cli import train
from distributed_pg.cli.console import command_name, console
from distributed_pg.cli.parsing import early_flags
from distributed_pg.cli.train import TrainArgs
from distributed_pg.config import PRETRAINED
from distributed_pg.errors import RunError, UsageError, counted, plain
from distributed_pg.shell import as_argument

if TYPE_CHECKING:
    from distributed_pg.runtime.jobs import Dashboard


@dataclass(frozen=True)
class SubmitArgs:
    """Train as a job on a running Ray cluster, follow its log, and fetch the run at the end.

    Needs only access to the cluster's dashboard, directly or through a tunnel. Ctrl-C leaves the
    job running. All flags except the first four are those of train.

    Raises:
        UsageError: a value is not allowed.
    """

    dashboard: str = "http://127.0.0.1:8265"
    """The URL of the cluster's dashboard."""
    out: Path | None = None
    """Folder to fetch the run to. Default: runs/JOB."""
    attach: str | None = None
    """Follow an existing job and fetch its run."""
    stop: str | None = None
    """Tell a job to save and stop."""

    train: tyro.conf.OmitArgPrefixes[TrainArgs] = field(default_factory=TrainArgs)

    given: tyro.conf.Suppress[tyro.conf.Fixed[tuple[str, ...]]] = field(
        default=(), metadata={"flag": False}
    )
    """The flags of train as given, for the job's command line."""

    def __post_init__(self) -> None:
        """Check every field."""
        if not re.match("https?://.", self.dashboard):
            raise UsageError(f"--dashboard: {self.dashboard!r} is not http://HOST:PORT")
        if self.attach is not None and self.stop is not None:
            raise UsageError("--stop: goes without --attach; do one or the other")
        job = self.stop if self.attach is None else self.attach
        if job is not None and not re.fullmatch(r"[\w.-]+", job):
            raise UsageError(f"{job!r} is not a job")
        if job is not None and self.given:
            raise UsageError(f"{self.given[0]}: a job that exists keeps its settings")
        if self.stop is not None and self.out is not None:
            raise UsageError("--out: --stop fetches nothing; --attach does")
        config = self.train.config
        if config.address is not None:
            raise UsageError(
                "--address: the job runs on the cluster of the dashboard; leave it out"
            )
        place = config.location
        if place is not None and "://" not in str(place):
            flag = "--run-dir" if config.may_begin else "--resume"
            raise UsageError(
                f"{flag}: {place} is on this machine, where the cluster cannot reach it; --out "
                "is the folder to fetch the run to"
            )
        source = str(config.init_from or PRETRAINED)
        if config.may_begin and source != PRETRAINED and "://" not in source:
            raise UsageError(
                f"--init-from: {source} is on this machine, where the cluster cannot reach it; "
                f"give a URI or {PRETRAINED}"
            )


def defaults(arguments: list[str]) -> SubmitArgs:
    """The defaults, as :func:`train.defaults` returns them, with the given flags of train.

    Args:
        arguments: the command line.

    Raises:
        UsageError: there is no such preset, or no run to resume.
        RunError: the run to resume cannot be read.
    """
    found = early_flags(arguments[1:], ("dashboard", "out", "attach", "stop"))
    if found is None:
        return SubmitArgs()
    _, given = found
    return SubmitArgs(train=train.defaults(arguments), given=tuple(given))


def run(args: SubmitArgs) -> int:
    """Submit, follow or stop a job; return the exit code."""
    if args.stop is not None:
        return _stop(args.dashboard, args.stop)

    from distributed_pg.storage.fresh_folder import RUNS

    config = args.train.config
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{config.preset}_{secrets.token_hex(2)}"
    job = args.attach or name
    out = _checked_out(args.out or RUNS / job)
    dashboard = _dashboard(args.dashboard)
    try:
        if args.attach is None:
            _print(f"Submitting job {job}")
            dashboard.submit(job, args.given, config.location)
        else:
            job = dashboard.job(job).submission_id or job
        return _follow(dashboard, job, out)
    except KeyboardInterrupt:
        commands = _next_commands(args.dashboard, job, out)
        console(stderr=True).print(f"\nJob {job} is not affected.\n{commands}", soft_wrap=True)
        raise


def _dashboard(url: str) -> "Dashboard":
    from distributed_pg.runtime.jobs import Dashboard

    # Silences Ray's client; its failures are exceptions.
    log = logging.getLogger("ray")
    log.handlers, log.propagate = [logging.NullHandler()], False
    return Dashboard(url)


def _print(text: str) -> None:
    console().print(text, soft_wrap=True)


def _next_commands(url: str, job: str, out: Path) -> str:
    command = f"{command_name()} submit --dashboard {as_argument(url)}"
    attach = f"--attach {job} --out {as_argument(out)}"
    return f"Attach: {command} {attach}\nStop:   {command} --stop {job}"


def _checked_out(out: Path) -> Path:
    """The folder to fetch to, checked to be empty or missing; its parent is created."""
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
        raise RunError(f"--out: {out} cannot be created ({error.strerror})") from None
    return out


def _stop(url: str, job: str) -> int:
    dashboard = _dashboard(url)
    details = dashboard.job(job)
    if details.status.is_terminal():
        _print(f"Job {job} has ended already: {details.status}")
        return 0
    dashboard.stop(job)
    _print(f"Job {job} is asked to save and stop.")
    return 0


def _follow(dashboard: "Dashboard", job: str, out: Path) -> int:
    """Print the log to its end and fetch the run; return the exit code."""
    from distributed_pg.runtime.jobs import failure

    try:
        dashboard.follow(job, _print_log)
        details = dashboard.job(job)
        kept_at = (details.metadata or {})["run_dir"]
        names = [] if kept_at else dashboard.run_files(details)
        if names:
            _print(f"Fetching {counted(len(names), 'file')} to {out}")
            dashboard.fetch(details, names, out)
    except RunError as error:
        commands = _next_commands(dashboard.url, job, out)
        raise RunError(f"{error}\nJob {job} is not affected.\n{commands}") from error
    if names:
        _show(out)
    elif kept_at:
        _print(f"The run is in {kept_at}")
    else:
        _print(f"Job {job} has no run: it ended before it began")
    reason = failure(details)
    if reason is not None:
        raise RunError(reason)
    return 0


def _print_log(text: str) -> None:
    print(plain(text), end="", flush=True)  # noqa: T201


def _show(run: Path) -> None:
    """Verify the checksums of all fetched checkpoints, then print the newest."""
    from distributed_pg.storage.checkpoint import load_checkpoint, weights_checksum
    from distributed_pg.storage.checkpoint_files import CHECKPOINTS
    from distributed_pg.storage.run_dir import RunDir

    newest = RunDir.open(run).newest_checkpoint()
    loaded = {path: load_checkpoint(path) for path in (run / CHECKPOINTS).glob("*.safetensors")}
    _print(f"Weights checksum: {weights_checksum(loaded[newest].state.policy)}")
    _print(f"Checkpoint: {newest}")
    _print(f"Evaluate:   {command_name()} evaluate {as_argument(run)}")
