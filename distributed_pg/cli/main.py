"""The ``distributed-pg`` command."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from distributed_pg.cli import (
    benchmark,
    evaluate,
    export,
    import_script,
    play,
    plot,
    record,
    report,
    submit,
    sweep,
    train,
)
from distributed_pg.cli.parsing import PARSER_OPTIONS, rules
from distributed_pg.cli.usage_errors import refusal, with_flag
from distributed_pg.determinism import pin_kernels
from distributed_pg.errors import RunError, UsageError
from distributed_pg.monitoring.log import log_shown_by
from distributed_pg.monitoring.streams import OutputError, checked_streams
from distributed_pg.system_info import library_versions

DESCRIPTION = """Learns Atari Pong from pixels with policy gradients in numpy, on all CPUs of a
machine or a Ray cluster. The same settings give the same weights, bit for bit, on any number of
workers. With --version, it prints its version and those of its libraries."""

COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "train": (train.TrainArgs, train.run),
    "submit": (submit.SubmitArgs, submit.run),
    "sweep": (sweep.SweepArgs, sweep.run),
    "evaluate": (evaluate.EvaluateArgs, evaluate.run),
    "play": (play.PlayArgs, play.run),
    "record": (record.RecordArgs, record.run),
    "export": (export.ExportArgs, export.run),
    "import": (import_script.ImportArgs, import_script.run),
    "plot": (plot.PlotArgs, plot.run),
    "report": (report.ReportArgs, report.run),
    "benchmark": (benchmark.BenchmarkArgs, benchmark.run),
}
"""The argument class and the entry point of each command."""
_DEFAULTS: dict[str, Callable[[list[str]], Any]] = {
    "train": train.defaults,
    "submit": submit.defaults,
    "sweep": sweep.defaults,
}
"""For some commands, a function that returns default values, given the command line."""
READER_GONE = 128 + 13
"""Exit code when the reader of the output is gone, as if SIGPIPE had ended the process."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit code when Ctrl-C has ended a command that does not save."""
EXIT_CODES = {
    0: "done, or saved and stopped on request",
    1: "something failed; one line says what",
    2: "the command or a setting is not allowed; one line says which and what is",
    INTERRUPTED: "Ctrl-C ended a command that does not save",
    READER_GONE: "the reader of a command that only prints has gone",
}
"""What each exit code means."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; None: those of this process.

    Returns:
        The exit code, one of :data:`EXIT_CODES`.
    """
    # Not on import: the processes that the benchmark starts import this module, too.
    pin_kernels()
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    with checked_streams():
        try:
            code = _run(arguments)
            sys.stdout.flush()  # a full disk may only show now
            return code
        except OutputError as error:
            return READER_GONE if error.reader_gone else _failed(arguments, error, 1)
        except UsageError as error:
            return _failed(arguments, error, 2)
        except RunError as error:
            code = _failed(arguments, error, 1)
            if error.hangs:
                os._exit(code)
            return code
        except KeyboardInterrupt:
            return INTERRUPTED


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(_versions())  # noqa: T201
        return 0
    try:
        command = parse_command(arguments)
    except SystemExit:  # help was asked for
        return 0
    kind, run = next(both for both in COMMANDS.values() if isinstance(command, both[0]))
    with log_shown_by(lambda line: _show(with_flag(line, kind))):
        return run(command)


def _show(line: str) -> None:
    # Not by a console of rich's: while a progress bar is drawn, rich shows above it what is written
    # to sys.stderr, but not what another console writes.
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _versions() -> str:
    """The versions that a bug report should name."""
    versions = library_versions()
    names = ("python", "ray", "ale-py", "gymnasium", "numpy")
    libraries = ", ".join(f"{name} {versions[name]}" for name in names)
    return f"distributed-pg {versions['distributed-pg']} ({libraries})"


def _failed(arguments: list[str], error: Exception, code: int) -> int:
    """Print the error, which names a field, with the flag that the user knows it by."""
    kind, _ = COMMANDS.get(arguments[0], (None, None))
    message = str(error) if kind is None else with_flag(str(error), kind)
    _show(f"distributed-pg: error: {message}")
    return code


def parse_command(arguments: list[str]) -> Any:
    """Parse the command line.

    Args:
        arguments: the command line, not empty.

    Returns:
        An instance of one of the argument classes of :data:`COMMANDS`.

    Raises:
        UsageError: the arguments are no command, or a value is not allowed.
        RunError: the run to resume cannot be read.
        SystemExit: help was requested, and has been printed.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                _commands(arguments),
                prog="distributed-pg",
                description=DESCRIPTION,
                args=arguments,
                config=PARSER_OPTIONS,
                registry=rules(),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        kinds = {name: kind for name, (kind, _) in COMMANDS.items()}
        raise refusal(stop, errors.getvalue(), arguments, kinds) from None


def _commands(arguments: list[str]) -> Any:
    """The union of all argument classes, as tyro expects it."""
    union: Any = None
    for name, (kind, _) in COMMANDS.items():
        description = train.description() if name == "train" else None
        if name in _DEFAULTS:
            default = _DEFAULTS[name](arguments) if arguments[0] == name else kind()
            subcommand = tyro.conf.subcommand(name, default=default, description=description)
        else:
            subcommand = tyro.conf.subcommand(name)
        member = Annotated[kind, subcommand]  # type: ignore[valid-type]
        union = member if union is None else union | member
    return union
