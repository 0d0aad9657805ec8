"""``distributed-pg sweep``."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from distributed_pg.cli.console import command_name, console
from distributed_pg.cli.parsing import PARSER_OPTIONS, early_flags, rules
from distributed_pg.cli.train import StopSignals
from distributed_pg.cli.usage_errors import refusal, with_flag
from distributed_pg.config import STOP_CONDITIONS, TrainConfig, preset
from distributed_pg.errors import UsageError
from distributed_pg.fields import Range, check_fields

if TYPE_CHECKING:
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
    """Values of a setting to compare, like gae_lambda=0.97,0.98. May be repeated; every combination
    is trained. Items of a value are separated by spaces."""
    trials_at_a_time: Annotated[int, Range(1, 10_000)] | None = None
    """Upper limit on the number of running trials; each has a learner on this machine. Default: one
    per CPU."""
    halving: Annotated[int, Range(2, 100)] | None = None
    """Stop a trial if it is not among the best of this many, when a share of --stop-frames is
    played."""
    quiet: bool = False
    """Print only the results and log lines."""
    no_color: bool = False
    """Show no colours; the environment variable NO_COLOR has the same effect."""

    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        location = self.config.location
        if "://" in str(location):
            raise UsageError(f"run_dir: {location} is a URI; a sweep needs a folder")
        if self.config.seed != preset(self.config.preset).seed:
            raise UsageError("seed: name the seeds of a sweep with --seeds")


def defaults(arguments: list[str]) -> SweepArgs:
    """The defaults of flags that are not given: the preset's values or the resumed sweep's.

    Args:
        arguments: the command line.

    Raises:
        UsageError: there is no such preset, or no sweep to resume.
        RunError: the sweep to resume cannot be read.
    """
    found = early_flags(arguments, ("preset", "resume", *STOP_CONDITIONS))
    if found is None:
        return SweepArgs()
    given, _ = found
    if given.resume not in (None, "None"):
        from distributed_pg.sweep.folder import SweepFolder

        base = SweepFolder.open(Path(given.resume)).plan.base
        stops = [name for name in STOP_CONDITIONS if getattr(given, name) is not None]
        return SweepArgs(config=base.to_go_on(given.resume, **dict.fromkeys(stops)))
    return SweepArgs(config=preset(given.preset)) if given.preset is not None else SweepArgs()


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
    code = _show_results(folder, states)
    if display.hangs:
        os._exit(code)  # everything is saved; a normal exit would wait for the terminal
    return code


@contextlib.contextmanager
def _kept(folder: "SweepFolder") -> Iterator[None]:
    """Lock the folder and write the plan; remove them if no trial begins."""
    try:
        with folder.lock():
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
    path = None if config.run_dir is None else Path(config.run_dir)
    return SweepFolder.create(path, _plan(args))


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
    if not hasattr(base, name):
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


def _show_results(folder: "SweepFolder", states: "list[TrialState]") -> int:
    """Write the results and print the table; return the exit code."""
    from distributed_pg.analysis.sweep_results import results_table, sweep_groups, write_csv

    screen, failed = console(), [state for state in states if state.status == "failed"]
    unfinished = [state for state in states if state.status in ("waiting", "running")]
    groups = sweep_groups(folder)
    if groups:
        screen.print(results_table(groups))
        write_csv(groups, folder.path / "curves.csv")
        screen.print(f"Wrote {folder.path / 'curves.csv'}", soft_wrap=True)
        _write_picture(folder, groups)
    for state in failed:
        screen.print(f"{state.trial.name}: failed: {state.reason}", soft_wrap=True)
    again = failed or unfinished
    screen.print("Next:")
    if again:
        address = folder.plan.base.address
        flag = "" if address is None else f" --address {address}"
        screen.print(f"  {command_name()} sweep --resume {folder.path}{flag}", soft_wrap=True)
    screen.print(f"  {command_name()} report {folder.path} --out sweep.html", soft_wrap=True)
    return 1 if failed else 0


def _write_picture(folder: "SweepFolder", groups: Any) -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        console().print("For a picture: pip install 'distributed-pg[plot]'", soft_wrap=True)
        return
    from distributed_pg.analysis.plot import curves_figure, write_figure

    path = folder.path / "curves.png"
    write_figure(curves_figure(groups, ("frames",)), path)
    console().print(f"Wrote {path}", soft_wrap=True)
