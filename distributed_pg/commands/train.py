"""``distributed-pg train``."""

import argparse
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import tyro

from distributed_pg.config import PRESETS, TrainConfig, preset
from distributed_pg.terminal import command_name, console


@dataclass(frozen=True)
class TrainArgs:
    """Train a policy."""

    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)

    quiet: bool = False
    """Show nothing but warnings and, at the end, the result."""
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
    try:
        given, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError:  # a flag without its value: the real parser says so
        return TrainArgs()
    if given.resume not in (None, "None"):
        from distributed_pg.train import resume_config

        return TrainArgs(resume_config(given.resume))
    return TrainArgs(preset(given.preset)) if given.preset is not None else TrainArgs()


def run(args: TrainArgs) -> int:
    """Train until a stop condition holds or the user stops it; returns the exit code."""
    from distributed_pg.display import TrainDisplay
    from distributed_pg.remote_run import is_uri
    from distributed_pg.train import train

    config, screen = args.config, console()
    with _StopSignals() as stop, TrainDisplay(screen, config) as display:
        result = train(config, display, lambda: stop.asked(display.message))
    how = "Stopped on request" if result.interrupted else "Done"
    screen.print(f"{how} after {result.episodes} episodes, {result.updates} updates.")
    screen.print(f"Weights checksum: {result.weights_checksum}")
    screen.print(f"Checkpoint: {result.checkpoint}", soft_wrap=True)
    kept_at = config.location if is_uri(config.location) else result.run_dir
    screen.print(f"Evaluate:   {command_name()} evaluate {kept_at}", soft_wrap=True)
    screen.print(f"Go on:      {command_name()} train --resume {kept_at}", soft_wrap=True)
    return 0


def _preset_text(name: str) -> str:
    config = preset(name)
    return (
        f"learning rate {config.learning_rate:g}, batch size {config.batch_size}, "
        f"policy lag {config.policy_lag}"
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
