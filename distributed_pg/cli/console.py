"""Console output shared by the commands."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console


class _Console(Console):
    """A console that never hides the cursor."""

    def show_cursor(self, show: bool = True) -> bool:
        """Do nothing: a killed process could not show a hidden cursor again."""
        return show


def console(*, stderr: bool = False, no_color: bool | None = None) -> Console:
    """A console that prints text verbatim, since a path or an error may look like markup.

    Args:
        stderr: write to stderr instead of stdout.
        no_color: show no colours; None: rich reads NO_COLOR.
    """
    return _Console(stderr=stderr, no_color=no_color, highlight=False, markup=False, emoji=False)


@contextmanager
def games_progress(screen: Console, games: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar of played games, on a terminal only.

    Args:
        screen: where to show it.
        games: the total number.

    Yields:
        A function to call with the number of games played.
    """
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn()
    quiet = not (screen.is_terminal and games)
    with Progress(*columns, console=screen, transient=True, disable=quiet) as progress:
        task = progress.add_task("Games played", total=games)
        yield lambda count: progress.update(task, completed=count)


def command_name() -> str:
    """How to call this command again, for suggested commands."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return "python -m distributed_pg"
    found = shutil.which(program.name)
    on_path = found is not None and program.exists() and program.samefile(found)
    return program.name if on_path else str(program)
