"""``distributed-pg report``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distributed_pg._extras import need_extra
from distributed_pg.cli.console import console, games_progress
from distributed_pg.errors import UsageError
from distributed_pg.fields import Range, check_fields


@dataclass(frozen=True)
class ReportArgs:
    """Write a self-contained HTML page about a run or a sweep.

    Of a run: curves, numbers, a recorded game. Of a sweep: curves, the results of each setting,
    all trials.

    Raises:
        UsageError: a value is not allowed.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder or URI, or the folder of a sweep."""
    out: Path = Path("report.html")
    """The page to write."""
    episodes: Annotated[int, Range(0, 10_000_000)] = 20
    """Games to evaluate a run's newest checkpoint with; 0: none. A sweep's page has none."""
    no_video: bool = False
    """Leave out the recorded game."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        if self.out.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"out: {self.out} does not end in .html")


def run(args: ReportArgs) -> int:
    """Play, record and write the page; return the exit code."""
    from distributed_pg.sweep.folder import is_sweep

    if is_sweep(args.run):
        _report_sweep(args)
    else:
        _report_run(args)
    console().print(f"Wrote {args.out}", soft_wrap=True)
    return 0


def _report_sweep(args: ReportArgs) -> None:
    need_extra("report", "jinja2", "matplotlib")
    from distributed_pg.analysis.report.sweep_page import write_sweep_report

    write_sweep_report(Path(args.run), args.out)


def _report_run(args: ReportArgs) -> None:
    need_extra("report", "jinja2", "matplotlib", "imageio_ffmpeg", "PIL")
    from distributed_pg.analysis.report.run_page import write_report

    errors = console(stderr=True)
    with games_progress(errors, args.episodes) as finished:
        write_report(
            args.run,
            args.out,
            episodes=args.episodes,
            video=not args.no_video,
            finished=finished,
        )
