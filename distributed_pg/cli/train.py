"""``distributed-pg train``."""

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from distributed_pg.cli.console import command_name, console
from distributed_pg.cli.parsing import early_flags, given_fields
from distributed_pg.cli.stop_signals import StopSignals
from distributed_pg.cli.usage_errors import with_flag
from distributed_pg.config import AUTO, STOP_CONDITIONS, TrainConfig
from distributed_pg.errors import UsageError, counted
from distributed_pg.presets import PRESETS, preset
from distributed_pg.shapes import SHAPED
from distributed_pg.shell import as_argument

if TYPE_CHECKING:
    from distributed_pg.monitoring.display_thread import Display
    from distributed_pg.storage.metrics import UpdateRecord
    from distributed_pg.trainer import TrainResult


@dataclass(frozen=True)
class TrainArgs:
    """Train a policy."""

    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)

    quiet: bool = False
    """Print only the run's location at the end, and log lines on stderr."""
    no_color: bool = False
    """Show no colours; the environment variable NO_COLOR has the same effect."""

    pinned: tyro.conf.Suppress[tyro.conf.Fixed[tuple[str, ...]]] = field(
        default=(), metadata={"flag": False}
    )
    """Names of the given flags of :data:`distributed_pg.shapes.SHAPED`."""
    given: tyro.conf.Suppress[tyro.conf.Fixed[tuple[str, ...]]] = field(
        default=(), metadata={"flag": False}
    )
    """With ``--resume auto``, the names of all given settings."""


def description() -> str:
    """The help text of the command, with the main settings of each preset."""
    presets = "; ".join(f"{name}: {_preset_text(name)}" for name in PRESETS)
    return f"Train a policy. Presets: {presets}."


def defaults(arguments: list[str]) -> TrainArgs:
    """The defaults of flags that are not given: the preset's values or the resumed run's.

    Args:
        arguments: the command line.

    Raises:
        UsageError: there is no such preset, or no run to resume.
        RunError: the run to resume cannot be read.
    """
    found = early_flags(arguments, ("preset", "resume", "shape_for", *SHAPED, *STOP_CONDITIONS))
    if found is None:
        return TrainArgs()
    given, _ = found
    if given.resume not in (None, "None", AUTO):
        from distributed_pg.trainer import resume_config

        if given.shape_for is not None:
            raise UsageError("shape_for: a resumed run keeps its settings; leave it out")
        stops = [name for name in STOP_CONDITIONS if getattr(given, name) is not None]
        return TrainArgs(resume_config(given.resume, **dict.fromkeys(stops)))
    pinned = tuple(name for name in SHAPED if getattr(given, name) is not None)
    config = TrainConfig() if given.preset is None else preset(given.preset)
    named = given_fields(arguments, TrainConfig) if given.resume == AUTO else ()
    return TrainArgs(config, pinned=pinned, given=named)


def run(args: TrainArgs) -> int:
    """Train until a stop condition holds or the user stops the run; return the exit code."""
    from distributed_pg.monitoring.display_thread import DisplayThread
    from distributed_pg.monitoring.log import log_shown_by

    config, screen = settled(args), console(no_color=args.no_color or None)
    errors = console(stderr=True, no_color=args.no_color or None)
    warn = partial(errors.print, soft_wrap=True)
    with (
        StopSignals("Saving and stopping; once more to exit at once") as stop,
        DisplayThread(_display(config, screen, errors if args.quiet else None), warn) as display,
        log_shown_by(lambda line: display.message(with_flag(line, TrainArgs))),
    ):
        # Imports Ray, slowly: the display is up by now.
        from distributed_pg.runtime.sizing import shaped_config
        from distributed_pg.trainer import kept_at, train

        config = shaped_config(config, args.pinned)
        result = train(config, display, stop.asked)
        place = kept_at(config, result.run_dir)
        display.conclude(_last_lines(result, place, config.address))
    if display.hangs:
        os._exit(0)  # everything is saved; a normal exit would wait for the terminal
    if args.quiet:
        screen.print(place, soft_wrap=True)
    return 0


def settled(args: TrainArgs) -> TrainConfig:
    """The settings; those of the saved run, changed as given, where ``--resume auto`` finds one.

    Raises:
        UsageError: the number of workers that the run is shaped for is another than that given.
        RunError: the run cannot be read.
    """
    config, place = args.config, args.config.run_dir
    if config.resume != AUTO or place is None:
        return config
    # Only now, since this imports numpy, and the display is not up yet.
    from distributed_pg.storage.open_run import run_exists, saved_config

    if not run_exists(place):
        return config
    saved = saved_config(place)
    given = {name: getattr(config, name) for name in args.given}
    if given.get("shape_for", saved.shape_for) != saved.shape_for:
        raise UsageError(
            f"shape_for: the run in {place} has {saved.shape_for}, not {config.shape_for}"
        )
    changes = {name: value for name, value in given.items() if name not in ("run_dir", "resume")}
    return saved.to_go_on(place, **changes)


def _last_lines(
    result: "TrainResult", kept_at: str | Path, address: str | None = None
) -> list[str]:
    progress = result.progress
    outcome = "Stopped on request" if result.interrupted else "Done"
    address_flag = "" if address is None else f" --address {address}"
    # The stop condition that held still does; another one has to take its place.
    stop_flag = "" if result.interrupted else f" --stop-episodes {2 * progress.episodes or 100}"
    run = as_argument(kept_at)
    commands = (
        f"evaluate {run}",
        f"record {run} --out game.mp4",
        f"report {run} --out report.html",
        f"train --resume {run}{address_flag}{stop_flag}",
    )
    return [
        f"{outcome} after {counted(progress.episodes, 'episode')}, "
        f"{counted(progress.update, 'update')}.",
        f"Weights checksum: {result.weights_checksum}",
        f"Checkpoint: {result.checkpoint}",
        "",
        "Next:",
        *(f"  {command_name()} {command}" for command in commands),
    ]


def _display(
    config: TrainConfig, screen: Console, errors: Console | None
) -> "Display[UpdateRecord]":
    """The display; with ``errors``, one that shows only what goes there."""
    from distributed_pg.monitoring.panel import RunPanel, past_means
    from distributed_pg.monitoring.terminal import QuietDisplay, TrainDisplay

    if errors is not None:
        return QuietDisplay(errors)
    panel = RunPanel(config, past_means(config))
    return TrainDisplay(screen, panel, live=screen.is_terminal and not screen.is_dumb_terminal)


def _preset_text(name: str) -> str:
    config = preset(name)
    return (
        f"learning rate {config.learning_rate:g}, batch size {config.batch_size}, "
        f"{config.baseline} baseline, policy lag {config.policy_lag}, "
        f"{counted(config.frame_skip, 'frame')} a step"
    )
