"""``distributed-pg sweep``."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import RenderableType

from distributed_pg.cli.console import command_name, console
from distributed_pg.cli.parsing import PARSER_OPTIONS, early_flags, rules, whole_number
from distributed_pg.cli.stop_signals import StopSignals
from distributed_pg.cli.usage_errors import refusal, with_flag
from distributed_pg.config import AUTO, STOP_CONDITIONS, TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.fields import Range, check_fields
from distributed_pg.presets import preset
from distributed_pg.shell import as_argument

if TYPE_CHECKING:
    from distributed_pg.analysis.learning_curves import Group
    from distributed_pg.sweep.folder import SweepFolder
    from distributed_pg.sweep.plan import SweepPlan
    from distributed_pg.sweep.trial_states import TrialState

_FLAGS = {"True": True, "true": True, "False": False, "false": False}


@dataclass(frozen=True)
class SweepArgs:
    """Train many runs at once, with several seeds and settings, and compare them.

    Each trial is an ordinary run in a folder of its own. The flags from --preset on are those of
    train and apply to every trial, but --run-dir is the folder of the sweep, --resume continues a
    sweep, --num-workers is the number of workers of one trial and --max-workers that of all.

    Raises:
        UsageError: a value is not allowed.
    """

    seeds: str | None = None
    """Seeds to train each setting with, like 0-9 or 0,3,20-29. Default: 0-4, or those of the
    resumed sweep."""
    set: tyro.conf.UseAppendAction[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE,VALUE")]
    ] = ()
    """Values of a setting to compare, like learning_rate=3e-3,6e-3. May be repeated; every
    combination is trained. A value of several items has spaces: "actions=UP DOWN,UP DOWN NOOP"."""
    trials_at_a_time: Annotated[int, Range(1, 10_000)] | None = None
    """Upper limit on the number of running trials; each has a learner on this machine. Default: one
    per CPU, also of a cluster, but at most 4 for each CPU of this machine."""
    halving: Annotated[int, Range(2, 100)] | None = None
    """Stop hopeless trials. With 2, the better half of the trials goes on from a half, a quarter
    and so on of stop_frames; with 3, the best third from a third and so on."""
    quiet: bool = False
    """Print only the results and log lines."""
    no_color: bool = False
    """Show no colours; the environment variable NO_COLOR has the same effect."""

    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        if self.config.resume == AUTO:
            raise UsageError("resume: auto is for train; name the folder of the sweep")
        _check_is_folder(self.config.location)
        if self.config.seed != preset(self.config.preset).seed:
            raise UsageError("seed: name the seeds of a sweep with --seeds")
        if self.config.wandb_id is not None:
            raise UsageError("wandb_id: each trial of a sweep gets its own")


def defaults(arguments: list[str]) -> SweepArgs:
    """The defaults of flags that are not given: the preset's values or the resumed sweep's.

    Args:
        arguments: the command line.

    Raises:
        UsageError: there is no such preset, or no sweep to resume.
        RunError: the sweep to resume cannot be read.
    """
    found = early_flags(arguments, ("preset", "resume", "shape_for", *STOP_CONDITIONS))
    if found is None:
        return SweepArgs()
    given, _ = found
    if given.resume not in (None, "None", AUTO):
        from distributed_pg.sweep.folder import SweepFolder

        _check_is_folder(given.resume)
        base = SweepFolder.open(Path(given.resume)).plan.base
        stops = [name for name in STOP_CONDITIONS if getattr(given, name) is not None]
        return SweepArgs(config=base.to_go_on(given.resume, **dict.fromkeys(stops)))
    changes: dict[str, Any] = {}
    if given.shape_for is not None:
        with contextlib.suppress(ValueError):  # tyro reports it
            changes["shape_for"] = whole_number(given.shape_for)
    return SweepArgs(config=preset(given.preset or TrainConfig().preset, **changes))


def _check_is_folder(location: str | Path | None) -> None:
    if "://" in str(location):
        raise UsageError(f"run_dir: {location} is a URI; a sweep needs a folder")


def run(args: SweepArgs) -> int:
    """Train the trials and print the results; return the exit code."""
    from distributed_pg.monitoring.display_thread import DisplayThread
    from distributed_pg.monitoring.log import log_shown_by

    screen = console(no_color=args.no_color or None)
    errors = console(stderr=True, no_color=args.no_color or None)
    warn = partial(errors.print, soft_wrap=True)
    folder = _folder(args)
    with (
        StopSignals("Saving and stopping all trials; once more to exit at once") as stop,
        _kept(folder),
        DisplayThread(_display(args, screen, errors), warn) as display,
        log_shown_by(lambda line: display.message(with_flag(line, SweepArgs))),
    ):
        from distributed_pg.sweep.sweeper import sweep  # imports Ray, slowly: the display is up

        states = sweep(
            folder,
            display,
            stop.asked,
            trials_at_a_time=args.trials_at_a_time,
            halving=args.halving,
        )
        lines, error = _results(folder, states)
        display.conclude(lines)
    code = 1 if any(state.status == "failed" for state in states) else 0
    if display.hangs:
        os._exit(code)  # everything is saved; a normal exit would wait for the terminal
    if args.quiet:
        for line in lines:
            screen.print(line, soft_wrap=isinstance(line, str))
    if error is not None:
        raise error
    return code


@contextlib.contextmanager
def _kept(folder: "SweepFolder") -> Iterator[None]:
    """Lock the folder and write the plan; remove them if no trial begins."""
    with folder.lock():
        try:
            folder.save_plan()
            yield
        except Exception:
            folder.discard()
            raise


def _folder(args: SweepArgs) -> "SweepFolder":
    """Create or open the sweep's folder."""
    from distributed_pg.sweep.folder import SweepFolder

    config = args.config
    if config.resume is not None:
        saved = SweepFolder.open(Path(config.resume))
        return saved.extended(_plan(args, saved.plan))
    from distributed_pg.sweep.sources import with_checksums

    path = None if config.run_dir is None else Path(config.run_dir)
    return SweepFolder.create(path, with_checksums(_plan(args)))


def _plan(args: SweepArgs, saved: "SweepPlan | None" = None) -> "SweepPlan":
    from distributed_pg.sweep.plan import SweepPlan, parse_seeds

    base = replace(args.config, run_dir=None, resume=None)
    seeds, grid = (tuple(range(5)), {}) if saved is None else (saved.seeds, dict(saved.grid))
    grid |= _grid(base, args.set)
    return SweepPlan(base, seeds if args.seeds is None else parse_seeds(args.seeds), grid)


def _grid(base: TrainConfig, given: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Parse ``NAME=VALUE,VALUE`` as the flags of train are parsed."""
    grid: dict[str, tuple[Any, ...]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not equals:
            raise UsageError(f"set: {text!r} is not NAME=VALUE,VALUE")
        if name in grid:
            raise UsageError(f"set: {name} is given twice")
        parts = [part.strip() for part in values.split(",")]
        if not all(parts):
            raise UsageError(f"set: {text!r} lacks a value")
        grid[name] = tuple(_value(base, name, part) for part in parts)
    return grid


def _value(base: TrainConfig, name: str, text: str) -> Any:
    if name not in {field.name for field in fields(base)}:
        return text  # the plan refuses the name
    if isinstance(getattr(base, name), bool):
        if text not in _FLAGS:
            raise UsageError(f"{name}: {text!r} is not true or false")
        return _FLAGS[text]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            config = tyro.cli(
                TrainConfig,
                args=[f"--{name.replace('_', '-')}", *text.split()],
                default=base,
                add_help=False,
                config=PARSER_OPTIONS,
                registry=rules(),
            )
    except SystemExit as stop:
        raise refusal(stop, errors.getvalue()) from None
    return getattr(config, name)


def _display(args: SweepArgs, screen: Any, errors: Any) -> Any:
    from distributed_pg.monitoring.terminal import QuietDisplay
    from distributed_pg.sweep.display import SweepDisplay

    if args.quiet:
        return QuietDisplay(errors)
    return SweepDisplay(screen, live=screen.is_terminal and not screen.is_dumb_terminal)


def _results(
    folder: "SweepFolder", states: "list[TrialState]"
) -> "tuple[list[RenderableType], RunError | None]":
    """Write the results; return what to print, and the error if a file could not be written."""
    from distributed_pg.analysis.sweep_results import results_table, sweep_groups

    groups = sweep_groups(folder)
    lines: list[RenderableType] = [results_table(groups)] if groups else []
    error: RunError | None = None
    try:
        for line in _written(folder, groups):
            lines.append(line)  # noqa: PERF402 - those before an error are kept
    except RunError as raised:
        error = raised
    return [*lines, *_last_lines(folder, states)], error


def _written(folder: "SweepFolder", groups: "list[Group]") -> Iterator[str]:
    """Write the files of the results, if there are any; yield a line for each.

    Raises:
        RunError: one cannot be written.
    """
    from distributed_pg.analysis.sweep_results import write_csv

    if not groups:
        return
    table, picture = folder.path / "curves.csv", folder.path / "curves.png"
    write_csv(groups, table)
    yield f"Wrote {table}"
    if find_spec("matplotlib") is None:
        yield "For a picture: pip install 'distributed-pg[plot]'"
        return
    from distributed_pg.analysis.plot import curves_figure, write_figure

    write_figure(curves_figure(groups, ("frames",)), picture)
    yield f"Wrote {picture}"


def _last_lines(folder: "SweepFolder", states: "list[TrialState]") -> list[str]:
    """What is left to do, and what to do next."""
    failed = [state.trial.name for state in states if state.status == "failed"]
    unfinished = [state for state in states if state.status in ("waiting", "running")]
    lines = []
    if failed:
        lines.append(f"{len(failed)} of {len(states)} trials failed: {', '.join(failed)}")
    if unfinished:
        lines.append(f"{len(unfinished)} of {len(states)} trials are not finished")
    lines += ["", "Next:"]
    if failed or unfinished:
        address = folder.plan.base.address
        flag = "" if address is None else f" --address {address}"
        lines.append(f"  {command_name()} sweep --resume {as_argument(folder.path)}{flag}")
    return [*lines, f"  {command_name()} report {as_argument(folder.path)} --out sweep.html"]
