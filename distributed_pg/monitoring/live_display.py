"""The common part of what shows a run or a sweep on a console."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

LINE_SECONDS = 10.0
"""Minimum time between two lines of progress."""

_Display = TypeVar("_Display", bound="LiveDisplay")


class LiveDisplay(ABC):
    """A live drawing at the bottom of the console with permanent lines above it, or only lines.

    Args:
        console: where to write.
        live: show the drawing.
    """

    def __init__(self, console: Console, *, live: bool) -> None:
        self._console = console
        self._concluding: Sequence[RenderableType] = ()
        self._is_live = live
        self._live: Live | None = None

    def __enter__(self: _Display) -> _Display:
        """Start drawing."""
        if self._is_live:
            self._live = Live(
                console=self._console,
                get_renderable=self._drawing,
                auto_refresh=False,
                transient=True,
            )
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the drawing; print the outcome, unless there was an error, and the last lines."""
        if self._live:
            self._live.stop()
        if kind is None:
            self._show_outcome()
        for line in self._concluding:
            self._console.print(line, soft_wrap=isinstance(line, str))

    def message(self, text: str) -> None:
        """Print one permanent line."""
        self._show(Text(f"{time.strftime('%H:%M:%S')} {text}"))

    def refresh(self) -> None:
        """Redraw the live drawing."""
        if self._live:
            self._live.refresh()

    def conclude(self, lines: Sequence[RenderableType]) -> None:
        """Set the lines to print at the end."""
        self._concluding = lines

    def _show(self, content: RenderableType) -> None:
        self._console.print(content, highlight=False, soft_wrap=not self._is_live)

    @abstractmethod
    def _drawing(self) -> RenderableType:
        """The live drawing."""

    def _show_outcome(self) -> None:  # noqa: B027  # a sweep prints a table of results instead
        """Print what the drawing showed last."""
