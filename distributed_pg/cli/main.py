"""The ``distributed-pg`` command."""

import contextlib
import io
import itertools
import operator
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import tyro

from distributed_pg.cli import (
    benchmark,
    evaluate,
    export,
    play,
    plot,
    record,
    report,
    submit,
    train,
)
from distributed_pg.cli.console import console
from distributed_pg.cli.parsing import rules, suggestion
from distributed_pg.determinism import pin_kernels
from distributed_pg.errors import ConfigError, RunError, UsageError
from distributed_pg.monitoring.log import log_shown_by
from distributed_pg.monitoring.streams import OutputError, checked_streams
from distributed_pg.system_info import library_versions

DESCRIPTION = """Learns to play Atari Pong from pixels, with policy gradients in numpy, on all CPUs
of a machine or a Ray cluster. The same settings give the same weights, bit for bit, on any number
of workers."""

COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "train": (train.TrainArgs, train.run),
    "submit": (submit.SubmitArgs, submit.run),
    "evaluate": (evaluate.EvaluateArgs, evaluate.run),
    "play": (play.PlayArgs, play.run),
    "record": (record.RecordArgs, record.run),
    "export": (export.ExportArgs, export.run),
    "plot": (plot.PlotArgs, plot.run),
    "report": (report.ReportArgs, report.run),
    "benchmark": (benchmark.BenchmarkArgs, benchmark.run),
}
"""For each command the class of its arguments and what it does with them."""
_DEFAULTS: dict[str, Callable[[list[str]], Any]] = {
    "train": train.defaults,
    "submit": submit.defaults,
}
"""For commands that have it: what the flags that are not given stand at, by those that are."""
READER_GONE = 128 + 13
"""The exit code where nobody reads the output any more: as of a process that SIGPIPE ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    # Not when this file is imported, as it is by the processes that the benchmark starts.
    pin_kernels()
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    with checked_streams():
        try:
            code = _run(arguments)
            sys.stdout.flush()  # a full disk may show only now
            return code
        except OutputError as error:
            return READER_GONE if error.reader_gone else _failed(error, 1)
        except UsageError as error:
            return _failed(error, 2)
        except RunError as error:
            code = _failed(error, 1)
            if error.hangs:
                os._exit(code)
            return code
        except KeyboardInterrupt:
            return 128 + signal.SIGINT


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(_versions())  # noqa: T201
        return 0
    try:
        command = parse_command(arguments)
    except SystemExit:  # help was asked for
        return 0
    run = next(run for kind, run in COMMANDS.values() if isinstance(command, kind))
    with log_shown_by(partial(console(stderr=True).print, soft_wrap=True)):
        return run(command)


def _versions() -> str:
    """What a report of a fault should name."""
    versions = library_versions()
    names = ("python", "ray", "ale-py", "gymnasium", "numpy")
    of_libraries = ", ".join(f"{name} {versions[name]}" for name in names)
    return f"distributed-pg {versions['distributed-pg']} ({of_libraries})"


def _failed(error: Exception, code: int) -> int:
    print(f"distributed-pg: error: {error}", file=sys.stderr, flush=True)  # noqa: T201
    return code


def parse_command(arguments: list[str]) -> Any:
    """The command's arguments, one of the classes of :data:`COMMANDS`.

    Args:
        arguments: what stands on the command line; not empty.

    Raises:
        UsageError: they are no command, or a value is not allowed.
        RunError: a run to go on with cannot be read.
        SystemExit: they asked for help, which is printed.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                _commands(arguments),
                prog="distributed-pg",
                description=DESCRIPTION,
                args=arguments,
                config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
                registry=rules(),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        said = _one_line(complaint.getvalue())
        if said.startswith("Unrecognized"):
            said += suggestion(arguments, {name: kind for name, (kind, _) in COMMANDS.items()})
        raise _refusal(stop) or UsageError(said) from None


def _commands(arguments: list[str]) -> Any:
    """The union of all commands' arguments, as tyro takes it."""
    union: Any = None
    for name, (kind, _) in COMMANDS.items():
        description = train.description() if name == "train" else None
        if name in _DEFAULTS:
            given = _DEFAULTS[name](arguments) if arguments[0] == name else kind()
            how = tyro.conf.subcommand(name, default=given, description=description)
        else:
            how = tyro.conf.subcommand(name)
        member = Annotated[kind, how]  # type: ignore[valid-type]
        union = member if union is None else union | member
    return union


def _refusal(stop: SystemExit) -> ConfigError | None:
    """The error of ours for which tyro has stopped; it takes each ValueError for one of its own."""
    error: BaseException | None = stop
    while error is not None and not isinstance(error, ConfigError):
        error = error.__context__
    return error


def _one_line(box: str) -> str:
    """The first sentence of the framed text in which tyro says what it could not parse.

    Its hook for errors is private. A later tyro may frame them otherwise: pyproject.toml caps it.
    """
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()[1:]]
    texts = [line.strip("-") and line for line in lines]  # lines, where output is not UTF-8
    # It ends at a line or at an empty one.
    message = itertools.takewhile(bool, itertools.dropwhile(operator.not_, texts))
    return " ".join(message).removeprefix("Error parsing ") or box
