"""The ``distributed-pg`` command."""

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

from distributed_pg.kernels import hold_kernels

hold_kernels()  # before anything below imports numpy

import tyro  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: E402
from rich.table import Table  # noqa: E402

from distributed_pg.config import (  # noqa: E402
    PRESETS,
    NumWorkers,
    TrainConfig,
    check_address,
    check_num_workers,
    check_whole,
    preset,
)
from distributed_pg.errors import RunError, UsageError  # noqa: E402

DESCRIPTION = """Learns to play Atari Pong from pixels, with policy gradients in numpy, on all CPUs
of a machine or a Ray cluster. The same settings give the same weights, bit for bit, on any number
of workers."""


@dataclass(frozen=True)
class EvaluateArgs:
    """Play whole games with the weights of a checkpoint and report mean and spread.

    Raises:
        ConfigError: a value is out of range.
    """

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH|URI")]
    """A checkpoint file, or a run's folder or URI for its newest one."""
    episodes: int = 100
    """Games to play."""
    greedy: bool = False
    """Take the most probable action instead of sampling."""
    seed: int = 0
    """Of the games and the sampling; never the games of a training run."""
    num_workers: NumWorkers = "auto"
    """Games at a time, one CPU each. auto: the CPUs of the machine or cluster."""
    address: str | None = None
    """HOST:PORT of a running Ray cluster, or auto to find one."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_whole("episodes", self.episodes, 1, 10_000_000)
        check_whole("seed", self.seed, 0, 2**63 - 1)
        check_num_workers(self.num_workers)
        check_address(self.address)


def _powers_of_two() -> str:
    """1, 2, 4 and so on, and the number of CPUs."""
    cpus = os.cpu_count() or 1
    powers = {2**n for n in range(cpus.bit_length()) if 2**n <= cpus}
    return ",".join(map(str, sorted(powers | {cpus})))


@dataclass(frozen=True)
class BenchmarkArgs:
    """Measure training speed against the bare emulator and the usual ways to train.

    Raises:
        ConfigError: a value is out of range.
    """

    num_workers: str = dataclasses.field(default_factory=_powers_of_two)
    """Numbers of workers to measure, with commas between. Default: 1, 2, 4 and so on, up to the
    number of CPUs."""
    rounds: int = 5
    """How often everything is measured, in turns."""
    seconds: float = 10.0
    """How long one measurement takes, at least."""
    simulate_workers: str = ""
    """Numbers of simulated workers, which play nothing, to find how many one learner can serve."""
    native_kernels: bool = False
    """Measure training also with workers that use all vector instructions of their CPU, to show
    what holding them to SSE gains. Shown as native."""
    checkpoint: Path | None = None
    """Whose policy plays: a file or a run's folder. Default: the initial one, whose games are
    short."""
    out: Path = Path("benchmark")
    """Folder for benchmark.json, benchmark.csv and the pictures."""
    address: str | None = None
    """HOST:PORT of a running Ray cluster, or auto to find one."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_whole("rounds", self.rounds, 1, 1000)
        if not 0.1 <= self.seconds <= 3600:
            raise UsageError(f"seconds: {self.seconds} is not a number from 0.1 to 3600")
        check_address(self.address)
        worker_counts("num_workers", self.num_workers)
        worker_counts("simulate_workers", self.simulate_workers or "1")


def worker_counts(name: str, text: str) -> list[int]:
    """The numbers in ``text``, ascending.

    Raises:
        UsageError: one of them is no number of workers; the message begins with ``name``.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdecimal() or not 1 <= int(part) <= 100_000:
            raise UsageError(
                f"{name}: {part!r} is not a whole number from 1 to 100000, with commas between "
                "several"
            )
    return sorted({int(part) for part in parts})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        command = parse_command(arguments)
        if isinstance(command, TrainConfig):
            return _train(command)
        return _evaluate(command) if isinstance(command, EvaluateArgs) else _benchmark(command)
    except UsageError as error:
        print(f"distributed-pg: error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except RunError as error:
        print(f"distributed-pg: error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def parse_command(arguments: list[str]) -> TrainConfig | EvaluateArgs | BenchmarkArgs:
    """The command that the arguments, which must not be empty, ask for.

    Raises:
        UsageError: they are no command, or a value is not allowed.
        RunError: a run to go on with cannot be read.
        SystemExit: they asked for help, which is printed.
    """
    presets = "; ".join(f"{name}: {_preset_text(name)}" for name in PRESETS)
    train = tyro.conf.subcommand(
        "train",
        default=_train_defaults(arguments),
        description=f"Train a policy. Presets: {presets}.",
    )
    evaluate = tyro.conf.subcommand("evaluate")
    benchmark = tyro.conf.subcommand("benchmark")
    commands = (
        Annotated[TrainConfig, train]
        | Annotated[EvaluateArgs, evaluate]
        | Annotated[BenchmarkArgs, benchmark]
    )
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            command: TrainConfig | EvaluateArgs | BenchmarkArgs = tyro.cli(
                commands,
                prog="distributed-pg",
                description=DESCRIPTION,
                args=arguments,
                config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code:
            raise UsageError(_one_line(complaint.getvalue())) from None
        raise
    return command


def _one_line(box: str) -> str:
    """The first sentence of the framed text in which tyro says what it could not parse."""
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()[1:]]
    message = itertools.takewhile(bool, lines)  # it ends at a line or at an empty one
    return " ".join(message).removeprefix("Error parsing ") or box


def _train_defaults(arguments: list[str]) -> TrainConfig:
    """What the flags that are not given stand at: the preset's values, or the resumed run's."""
    if arguments[0] != "train":
        return TrainConfig()
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset")
    parser.add_argument("--resume")
    try:
        given, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError:  # a flag without its value: the real parser says so
        return TrainConfig()
    if given.resume not in (None, "None"):
        from distributed_pg.train import resume_config

        return resume_config(given.resume)
    return preset(given.preset) if given.preset is not None else TrainConfig()


def _preset_text(name: str) -> str:
    config = preset(name)
    return (
        f"learning rate {config.learning_rate:g}, batch size {config.batch_size}, "
        f"policy lag {config.policy_lag}"
    )


def _train(config: TrainConfig) -> int:
    from distributed_pg.display import TrainDisplay
    from distributed_pg.remote_run import is_uri
    from distributed_pg.train import train

    console = _console()
    with _StopSignals() as stop, TrainDisplay(console, config) as display:
        result = train(config, display, lambda: stop.asked(display.message))
    how = "Stopped on request" if result.interrupted else "Done"
    console.print(f"{how} after {result.episodes} episodes, {result.updates} updates.")
    console.print(f"Weights checksum: {result.weights_checksum}")
    console.print(f"Checkpoint: {result.checkpoint}", soft_wrap=True)
    kept_at = config.location if is_uri(config.location) else result.run_dir
    called = Path(sys.argv[0])
    command = "python -m distributed_pg" if called.name == "__main__.py" else called
    console.print(f"Evaluate:   {command} evaluate {kept_at}", soft_wrap=True)
    console.print(f"Go on:      {command} train --resume {kept_at}", soft_wrap=True)
    return 0


def _console(*, stderr: bool = False) -> Console:
    """Prints text as it is: a path or an error may look like markup."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def _evaluate(args: EvaluateArgs) -> int:
    from distributed_pg.evaluate import evaluate

    errors = _console(stderr=True)
    columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn()
    quiet = not errors.is_terminal
    with Progress(*columns, console=errors, transient=True, disable=quiet) as progress:
        games = progress.add_task("Games played", total=args.episodes)
        result = evaluate(
            args.checkpoint,
            args.episodes,
            greedy=args.greedy,
            seed=args.seed,
            num_workers=args.num_workers,
            address=args.address,
            finished=lambda count: progress.update(games, completed=count),
            message=errors.print,
        )
    values = dataclasses.asdict(result)
    if args.json:
        print(json.dumps(values))  # noqa: T201
        return 0
    table = Table(show_header=False, box=None)
    for name, value in values.items():
        text = "-" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value}"
        table.add_row(name, text)
    _console().print(table)
    return 0


def _benchmark(args: BenchmarkArgs) -> int:
    from distributed_pg.benchmark import benchmark, simulate
    from distributed_pg.benchmark_report import (
        gradient_line,
        memory_line,
        simulation_table,
        speed_table,
        write_report,
    )
    from distributed_pg.memory_benchmark import measure_memory

    errors = _console(stderr=True)
    of_policy: dict[str, Any] = {
        "checkpoint": args.checkpoint,
        "address": args.address,
        "progress": errors.print,
    }
    counts = worker_counts("num_workers", args.num_workers)
    rows = benchmark(counts, args.rounds, args.seconds, native=args.native_kernels, **of_policy)
    simulations = []
    if args.simulate_workers:
        simulated = worker_counts("simulate_workers", args.simulate_workers)
        simulations = simulate(simulated, args.seconds, **of_policy)
    memory = measure_memory(errors.print)
    files = write_report(rows, simulations, memory, args.rounds, args.seconds, args.out)
    console = _console()
    console.print(speed_table(rows))
    console.print(gradient_line(rows))
    if simulations:
        console.print(simulation_table(simulations))
    console.print(memory_line(memory))
    for file in files:
        console.print(f"Wrote {file}", soft_wrap=True)
    return 0


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
