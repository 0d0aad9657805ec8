"""What the commands share in speaking to the user."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console


class _Console(Console):
    """A console that leaves the cursor where a killed process would want it: in sight."""

    def show_cursor(self, show: bool = True) -> bool:
        """Do nothing: who hides the cursor may not get to show it again."""
        return show


def console(*, stderr: bool = False, no_color: bool | None = None) -> Console:
    """Prints text as it is: a path or an error may look like markup."""
    # None: rich looks at NO_COLOR.
    return _Console(stderr=stderr, no_color=no_color, highlight=False, markup=False, emoji=False)


@contextmanager
def games_progress(screen: Console, games: int) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many of ``games`` were played; yields whom to tell that number."""
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn()
    quiet = not (screen.is_terminal and games)
    with Progress(*columns, console=screen, transient=True, disable=quiet) as progress:
        task = progress.add_task("Games played", total=games)
        yield lambda count: progress.update(task, completed=count)


def command_name() -> str:
    """How this command was called, for the commands it advises."""
    called = Path(sys.argv[0])
    return "python -m distributed_pg" if called.name == "__main__.py" else str(called)
