"""When a run's running mean first reached certain rewards."""

from dataclasses import dataclass

from rich.table import Table

from distributed_pg.analysis.learning_curves import Array, Curve, Group

LEVELS = (-15, -10, 0, 5, 10, 15)
"""Rewards that mark the stages of learning Pong; a beginner scores -21, and 21 is the maximum."""


@dataclass(frozen=True, slots=True)
class Milestone:
    """The first update after which the running mean was at least ``level``."""

    level: int
    episodes: int
    minutes: float
    frames: int
    mean: float
    """The running mean after that update; can exceed the level."""

    @property
    def name(self) -> str:
        """The level with its sign."""
        return level_name(self.level)


def level_name(level: int) -> str:
    """The level as text, with its sign: ``-15``, ``0``, ``+5``."""
    return f"{level:+d}" if level else "0"


def first_at(running_mean: Array, level: float) -> int | None:
    """Index of the first value that is at least ``level``; None if there is none."""
    reached = (running_mean >= level).nonzero()[0]
    return int(reached[0]) if len(reached) else None


def milestones(curve: Curve) -> list[Milestone]:
    """The milestones the run reached, one per level of :data:`LEVELS`."""
    found = {level: first_at(curve.running_mean, level) for level in LEVELS}
    return [
        Milestone(
            level,
            int(curve.episodes[i]),
            float(curve.minutes[i]),
            int(curve.frames[i]),
            float(curve.running_mean[i]),
        )
        for level, i in found.items()
        if i is not None
    ]


def milestones_table(curves: list[Curve], groups: list[Group]) -> Table:
    """A terminal table of each run's episodes and minutes to the milestones.

    Where there are several groups, a run's stands below its name, as the picture's legend has it.
    """
    labels = {
        id(curve): group.label
        for group in groups
        for curve in group.curves
        if len(groups) > 1 and group.label != curve.name
    }
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("running mean", overflow="fold")
    table.add_column("")
    for level in LEVELS:
        table.add_column(level_name(level), justify="right", no_wrap=True)
    for curve in curves:
        reached = {milestone.level: milestone for milestone in milestones(curve)}
        row = [reached.get(level) for level in LEVELS]
        table.add_row(curve.name, "episodes", *(f"{m.episodes}" if m else "-" for m in row))
        minutes = (f"{m.minutes:.1f}" if m else "-" for m in row)
        table.add_row(labels.get(id(curve), ""), "minutes", *minutes)
    return table
