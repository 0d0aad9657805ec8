"""Shows a run in a notebook: a panel that is redrawn in its cell, and log lines."""

import html
import io
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, RenderableType

from distributed_pg.monitoring.panel import RunPanel, run_text
from distributed_pg.storage.metrics import UpdateRecord

_WIDTH = 80
_STYLE = "line-height: 1.2; font-family: Menlo, 'DejaVu Sans Mono', Consolas, monospace"


def in_notebook() -> bool:
    """Whether this process is a notebook kernel."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


class NotebookDisplay:
    """A :class:`distributed_pg.monitoring.display_thread.Display` for the running cell.

    Args:
        panel: the run's panel.
    """

    def __init__(self, panel: RunPanel) -> None:
        # Only notebook kernels have IPython, and they have it loaded.
        self._html = sys.modules["IPython"].display.HTML
        self._panel = panel
        self._shown = self._rendered()
        self._cell = sys.modules["IPython"].display.display(
            self._html(self._shown), display_id=True
        )

    def __enter__(self) -> "NotebookDisplay":
        """Do nothing: the panel is already shown."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the final numbers in the cell."""
        self.refresh()

    def starting(self, place: str, episodes: int) -> None:
        """Print where the run is; that it starts is said by the panel."""
        self.message(run_text(place, episodes))

    def message(self, text: str) -> None:
        """Print one permanent line."""
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201

    def updated(self, record: UpdateRecord) -> None:
        """Show the run's state after an update."""
        self._panel.updated(record)

    def refresh(self) -> None:
        """Redraw the panel if it has changed: a notebook keeps what it is sent."""
        rendered = self._rendered()
        if rendered != self._shown:
            self._shown = rendered
            self._cell.update(self._html(rendered))

    def conclude(self, lines: Sequence[RenderableType]) -> None:
        """Print the lines."""
        for line in lines:
            print(line, flush=True)  # noqa: T201

    def _rendered(self) -> str:
        console = Console(
            file=io.StringIO(), record=True, width=_WIDTH, force_terminal=True, highlight=False
        )
        console.print(self._panel)
        style = html.escape(_STYLE)
        code = f'<pre style="{style}">{{code}}</pre>'
        return console.export_html(inline_styles=True, code_format=code)
