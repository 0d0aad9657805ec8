"""``distributed-pg evaluate``."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated

from rich.table import Table

from distributed_pg.cli.arguments import Checkpoint
from distributed_pg.cli.console import console, games_progress
from distributed_pg.config import NumWorkers, Seed, check_address
from distributed_pg.fields import Range, check_fields


@dataclass(frozen=True)
class EvaluateArgs:
    """Play full games with a trained policy and report mean and spread.

    Raises:
        ConfigError: a value is out of range.
    """

    checkpoint: Checkpoint
    """A checkpoint, a run's folder or URI for its newest one, or pretrained: the policy that comes
    with this package."""
    episodes: Annotated[int, Range(1, 10_000_000)] = 100
    """Games to play."""
    greedy: bool = False
    """Take the most probable action instead of sampling."""
    seed: Seed = 0
    """Seed of the games and the sampling; the games never coincide with training games."""
    num_workers: NumWorkers = "auto"
    """Number of workers, one CPU each. auto: one per CPU of the machine or cluster."""
    address: str | None = None
    """HOST:PORT of a running Ray cluster, or auto to find one."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        check_address(self.address)


def run(args: EvaluateArgs) -> int:
    """Play the games and print the result; return the exit code."""
    from distributed_pg.evaluation import evaluate

    errors = console(stderr=True)
    with games_progress(errors, args.episodes) as finished:
        result = evaluate(
            args.checkpoint,
            args.episodes,
            greedy=args.greedy,
            seed=args.seed,
            num_workers=args.num_workers,
            address=args.address,
            finished=finished,
        )
    values = dataclasses.asdict(result)
    if args.json:
        print(json.dumps(values))  # noqa: T201
        return 0
    table = Table(show_header=False, box=None)
    for name, value in values.items():
        text = "-" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value}"
        table.add_row(name, text)
    console().print(table)
    return 0
