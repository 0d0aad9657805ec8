"""``distributed-pg train``."""

import argparse
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from distributed_pg.config import PRESETS, STOP_CONDITIONS, TrainConfig, preset
from distributed_pg.terminal import command_name, console

if TYPE_CHECKING:
    from distributed_pg.display import QuietDisplay, TrainDisplay


@dataclass(frozen=True)
class TrainArgs:
    """Train a policy."""

    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)

    quiet: bool = False
    """Print nothing but where the run is kept at the end, and warnings on stderr."""
    no_color: bool = False
    """Show no colours; so does the environment variable NO_COLOR."""


def description() -> str:
    """The help text, with what each preset stands for."""
    presets = "; ".join(f"{name}: {_preset_text(name)}" for name in PRESETS)
    return f"Train a policy. Presets: {presets}."


def defaults(arguments: list[str]) -> TrainArgs:
    """What the flags that are not given stand at: the preset's values, or the resumed run's.

    Raises:
        UsageError: there is no such preset, or no run to go on with.
        RunError: that run cannot be read.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset")
    parser.add_argument("--resume")
    for name in STOP_CONDITIONS:
        parser.add_argument(f"--{name.replace('_', '-')}", f"--{name}", dest=name)
    try:
        given, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError:  # a flag without its value: the real parser says so
        return TrainArgs()
    if given.resume not in (None, "None"):
        from distributed_pg.train import resume_config

        stops = [name for name in STOP_CONDITIONS if getattr(given, name) is not None]
        return TrainArgs(resume_config(given.resume, **dict.fromkeys(stops)))
    return TrainArgs(preset(given.preset)) if given.preset is not None else TrainArgs()


def run(args: TrainArgs) -> int:
    """Train until a stop condition holds or the user stops it; returns the exit code."""
    from distributed_pg.remote_run import is_uri

    config, screen = args.config, console(no_color=args.no_color or None)
    with _StopSignals() as stop, _display(args, screen) as display:
        from distributed_pg.train import train  # Ray's import takes a while: something shows

        result = train(config, display, lambda: stop.asked(display.message))
    kept_at = config.location if is_uri(config.location) else result.run_dir
    if args.quiet:
        screen.print(kept_at, soft_wrap=True)
        return 0
    how = "Stopped on request" if result.interrupted else "Done"
    screen.print(f"{how} after {result.episodes} episodes, {result.updates} updates.")
    screen.print(f"Weights checksum: {result.weights_checksum}")
    screen.print(f"Checkpoint: {result.checkpoint}", soft_wrap=True)
    screen.print("\nNext:")
    for command in (
        f"evaluate {kept_at}",
        f"record {kept_at} --out game.mp4",
        f"report {kept_at} --out report.html",
        f"train --resume {kept_at}",
    ):
        screen.print(f"  {command_name()} {command}", soft_wrap=True)
    return 0


def _display(args: TrainArgs, screen: Console) -> "TrainDisplay | QuietDisplay":
    from distributed_pg.display import QuietDisplay, TrainDisplay

    if args.quiet:
        return QuietDisplay(console(stderr=True, no_color=args.no_color or None))
    return TrainDisplay(screen, args.config, _history(args.config))


def _history(config: TrainConfig) -> list[float]:
    """The running means of a run that goes on in a folder; none where it is kept elsewhere."""
    from distributed_pg.run_dir import METRICS, read_metrics

    if config.resume is None:
        return []
    try:
        records = read_metrics(Path(config.resume) / METRICS)
        means = [record["running_mean"] for record in records]
        return [float(mean) for mean in means if mean is not None]
    except (OSError, ValueError, TypeError, LookupError):
        return []  # damaged lines are the run's concern; here the curve only begins anew


def _preset_text(name: str) -> str:
    config = preset(name)
    return (
        f"learning rate {config.learning_rate:g}, batch size {config.batch_size}, "
        f"{config.baseline} baseline, policy lag {config.policy_lag}, "
        f"{config.frame_skip} frames a step"
    )


class _StopSignals:
    """SIGINT and SIGTERM ask the run to save and stop; a second one ends the process at once."""

    def __init__(self) -> None:
        self._asked = False
        self._told = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self, tell: Callable[[str], None]) -> bool:
        """Whether to stop; the first time it is so, ``tell`` the user."""
        if self._asked and not self._told:
            self._told = True
            tell("Saving and stopping; once more to exit at once")
        return self._asked

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        # Nothing else is safe here: the display may be in the middle of a line.
        if self._asked:
            os._exit(128 + number)
        self._asked = True
