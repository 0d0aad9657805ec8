"""The interfaces that receive every update: reporters, which show the run, and callbacks."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from distributed_pg.storage.metrics import UpdateRecord


class Reporter(Protocol):
    """Shows the run to the user."""

    def updated(self, record: UpdateRecord) -> None:
        """Take the record of an update."""


class NullReporter:
    """A reporter that shows nothing."""

    def updated(self, record: UpdateRecord) -> None:
        """Show nothing."""


Callback: TypeAlias = Callable[[UpdateRecord], bool | None]
"""Called with the record of every update. Returning True stops the run after this update, like a
stop condition. An exception also ends the run. The update is saved either way."""
