"""The ``distributed-pg`` command."""

import contextlib
import io
import itertools
import operator
import os
import re
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
from distributed_pg.cli.parsing import rules, suggestion, with_flag
from distributed_pg.determinism import pin_kernels
from distributed_pg.errors import ConfigError, RunError, UsageError
from distributed_pg.monitoring.log import log_shown_by
from distributed_pg.monitoring.streams import OutputError, checked_streams
from distributed_pg.system_info import library_versions

DESCRIPTION = """Learns Atari Pong from pixels with policy gradients in numpy, on all CPUs of a
machine or a Ray cluster. The same settings give the same weights, bit for bit, on any number of
workers."""

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
"""The argument class and the entry point of each command."""
_DEFAULTS: dict[str, Callable[[list[str]], Any]] = {
    "train": train.defaults,
    "submit": submit.defaults,
}
"""For some commands, a function that returns default values, given the command line."""
_NO_MEMBER = re.compile(r"no type matching (\S+) could be instantiated from \[(.*)\]\.")
_UNRECOGNIZED = "Unrecognized options: "
_MISSING = re.compile(r"Missing from distributed-pg (\S+): ((?:--\S+ )?\S+) ")
READER_GONE = 128 + 13
"""Exit code when the reader of the output is gone, as if SIGPIPE had ended the process."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; None: those of this process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage.
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
            return 128 + signal.SIGINT


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(_versions())  # noqa: T201
        return 0
    try:
        command = parse_command(arguments)
    except SystemExit:  # help was asked for
        return 0
    kind, run = next(both for both in COMMANDS.values() if isinstance(command, both[0]))
    show = partial(console(stderr=True).print, soft_wrap=True)
    with log_shown_by(lambda line: show(with_flag(line, kind))):
        return run(command)


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
    print(f"distributed-pg: error: {message}", file=sys.stderr, flush=True)  # noqa: T201
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
                config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
                registry=rules(),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        message = _one_line(errors.getvalue())
        if message.startswith(_UNRECOGNIZED):
            message = _without_values(message, arguments)
            message += suggestion(arguments, {name: kind for name, (kind, _) in COMMANDS.items()})
        raise _config_error(stop) or UsageError(message) from None


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


def _config_error(stop: SystemExit) -> ConfigError | None:
    """The ConfigError behind tyro's exit, if any; tyro handles every ValueError as its own."""
    error: BaseException | None = stop
    while error is not None and not isinstance(error, ConfigError):
        error = error.__context__
    return error


def _one_line(box: str) -> str:
    """The first sentence of tyro's framed error message.

    Tyro's error hook is private, and a later version may change the frame; pyproject.toml caps it.
    """
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()[1:]]
    texts = [line.strip("-") and line for line in lines]  # dashes are frame if output is not UTF-8
    # The message ends at a frame line or an empty one.
    message = itertools.takewhile(bool, itertools.dropwhile(operator.not_, texts))
    sentence = " ".join(message).removeprefix("Error parsing ") or box
    if missing := _MISSING.match(sentence):
        command, argument = missing.groups()
        return f"{command}: {argument} is missing; {command} --help describes it"
    return _NO_MEMBER.sub(_not_one_of, sentence)


def _without_values(message: str, arguments: list[str]) -> str:
    """Tyro's list of unrecognized words, without the values of unrecognized flags."""
    words = message.removeprefix(_UNRECOGNIZED).split(", ")
    after = dict(itertools.pairwise(reversed(arguments)))  # each word's predecessor
    kept = [w for w in words if w.startswith("-") or not _takes_value(after.get(w, ""), words)]
    return _UNRECOGNIZED + ", ".join(kept)


def _takes_value(flag: str, unrecognized: list[str]) -> bool:
    return flag.startswith("--") and "=" not in flag and flag in unrecognized


def _not_one_of(found: re.Match[str]) -> str:
    """What tyro says of a value that fits no member of a union, as a user would put it."""
    kinds = {"INT": "a whole number", "FLOAT": "a number", "{None}": "None"}
    members = [kinds.get(member, member.strip("{}")) for member in found[1].split("|")]
    return f"{found[2]} is not {' or '.join(members)}"
