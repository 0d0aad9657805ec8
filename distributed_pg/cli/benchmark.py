"""``distributed-pg benchmark``."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from distributed_pg.cli.console import console
from distributed_pg.config import WORKERS, Seed, check_address
from distributed_pg.errors import UsageError, writing
from distributed_pg.fields import Range, check_fields


def _powers_of_two() -> str:
    """The powers of two up to the number of CPUs, and that number."""
    cpus = os.cpu_count() or 1
    powers = {2**n for n in range(cpus.bit_length()) if 2**n <= cpus}
    return ",".join(map(str, sorted(powers | {cpus})))


@dataclass(frozen=True)
class BenchmarkArgs:
    """Compare training speed with the bare emulator and with the usual ways to train.

    Raises:
        ConfigError: a value is out of range.
    """

    num_workers: str = dataclasses.field(default_factory=_powers_of_two)
    """Numbers of workers to measure, separated by commas. Default: 1, 2, 4 and so on, up to the
    number of CPUs."""
    rounds: Annotated[int, Range(1, 1000)] = 5
    """Number of rounds; each round measures everything once."""
    seconds: Annotated[float, Range(0.1, 3600.0)] = 10.0
    """Minimum seconds per measurement."""
    simulate_workers: str = ""
    """Numbers of simulated workers, which play no games, to find how many one learner can serve."""
    episodes_per_task: str = "1"
    """Numbers of episodes that a simulated worker plays before it returns the sum of their
    gradients."""
    to_score: Annotated[float, Range(-21.0, 21.0)] | None = None
    """Also measure how long a new run trains, with the most of these workers, until the mean of its
    last 100 games is this."""
    score_minutes: Annotated[float, Range(0.0, 1e9, open_low=True)] = 60.0
    """Minutes of training after which such a run is given up."""
    score_seed: Seed = 0
    """Its seed."""
    with_sb3: bool = False
    """With to_score, also train PPO of Stable-Baselines3 with its default settings, if it is
    installed: pip install 'stable-baselines3[extra]'."""
    native_kernels: bool = False
    """Also measure training with workers that use all vector instructions of their CPU, shown as
    native, to show the gain from restricting workers to SSE."""
    checkpoint: str | None = None
    """Policy that plays, at its frame skip: a file, a run's folder or URI, or pretrained. Default:
    the initial policy at 4 frames per step, as in the classic script; its games are short."""
    out: Path = Path("benchmark")
    """Folder for benchmark.json, benchmark.csv and the figures."""
    address: str | None = None
    """HOST:PORT of a running Ray cluster, or auto to find one."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        check_address(self.address)
        if self.with_sb3 and self.to_score is None:
            raise UsageError("with_sb3: goes with to_score, which is not given")
        counts("num_workers", self.num_workers)
        counts("simulate_workers", self.simulate_workers or "1")
        counts("episodes_per_task", self.episodes_per_task)


def counts(name: str, text: str) -> list[int]:
    """Parse numbers separated by commas, each from 1 to 100000.

    Args:
        name: the argument, for the message.
        text: the numbers.

    Returns:
        The distinct numbers, ascending.

    Raises:
        UsageError: one is out of range; the message begins with ``name``.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdecimal() or int(part) not in WORKERS:
            raise UsageError(
                f"{name}: {part!r} is not a whole number {WORKERS}, with commas between several"
            )
    return sorted({int(part) for part in parts})


def run(args: BenchmarkArgs) -> int:
    """Measure, print the tables and write the files; return the exit code."""
    from distributed_pg.benchmark.memory import measure_memory
    from distributed_pg.benchmark.report import (
        gradient_line,
        memory_line,
        score_table,
        simulation_table,
        speed_table,
        write_report,
    )
    from distributed_pg.benchmark.throughput import benchmark, simulate
    from distributed_pg.benchmark.time_to_score import times_to_score

    with writing(f"out: {args.out}"):  # now, rather than after minutes of measuring
        args.out.mkdir(parents=True, exist_ok=True)
    errors = console(stderr=True)
    common: dict[str, Any] = {
        "checkpoint": args.checkpoint,
        "address": args.address,
        "progress": errors.print,
    }
    workers = counts("num_workers", args.num_workers)
    rows = benchmark(workers, args.rounds, args.seconds, native=args.native_kernels, **common)
    simulations = []
    if args.simulate_workers:
        simulated = counts("simulate_workers", args.simulate_workers)
        per_task = counts("episodes_per_task", args.episodes_per_task)
        simulations = simulate(simulated, per_task, args.seconds, **common)
    times = []
    if args.to_score is not None:
        limits = args.to_score, max(workers), args.score_minutes, args.score_seed
        times = times_to_score(*limits, with_ppo=args.with_sb3, progress=errors.print)
    screen = console()
    screen.print(speed_table(rows))
    screen.print(gradient_line(rows))
    if simulations:
        screen.print(simulation_table(simulations))
    if times:
        screen.print(score_table(times))
    memory = measure_memory(errors.print)
    screen.print(memory_line(memory))
    for file in write_report(rows, simulations, times, memory, args.rounds, args.seconds, args.out):
        screen.print(f"Wrote {file}", soft_wrap=True)
    return 0
