"""Whoever shows a run to the user."""

from typing import Protocol

from distributed_pg.storage.metrics import UpdateRecord


class Reporter(Protocol):
    """Whoever shows the run to the user."""

    def message(self, text: str) -> None:
        """Something happened that the user should know."""

    def updated(self, record: UpdateRecord) -> None:
        """An update was made."""


class NullReporter:
    """A reporter that says nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def updated(self, record: UpdateRecord) -> None:
        """Say nothing."""
