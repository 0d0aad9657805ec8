"""Who is told of every update: whoever shows the run, and what may end it."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from distributed_pg.storage.metrics import UpdateRecord


class Reporter(Protocol):
    """Whoever shows the run to the user."""

    def updated(self, record: UpdateRecord) -> None:
        """An update was made."""


class NullReporter:
    """A reporter that shows nothing."""

    def updated(self, record: UpdateRecord) -> None:
        """Show nothing."""


Callback: TypeAlias = Callable[[UpdateRecord], bool | None]
"""Called with the record of every update. If it returns True, the run stops after this update, as
if a stop condition held. What it raises ends the run as well; the update is saved either way."""
