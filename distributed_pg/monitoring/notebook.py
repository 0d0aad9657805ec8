"""Shows a run in a notebook: a panel that is drawn anew in its cell, and lines above it."""

import html
import io
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from distributed_pg.monitoring.panel import RunPanel
from distributed_pg.storage.metrics import UpdateRecord

_WIDTH = 80
_STYLE = "line-height: 1.2; font-family: Menlo, 'DejaVu Sans Mono', Consolas, monospace"


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


class NotebookDisplay:
    """A :class:`distributed_pg.monitoring.display_thread.Display` for the cell that runs now.

    Args:
        panel: what is shown of the run.
    """

    def __init__(self, panel: RunPanel) -> None:
        # Only kernels have it, and they have it loaded.
        self._html = sys.modules["IPython"].display.HTML
        self._panel = panel
        self._cell = sys.modules["IPython"].display.display(self._drawn(), display_id=True)

    def __enter__(self) -> "NotebookDisplay":
        """Nothing to begin: the panel is there already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last figures in the cell."""
        self.refresh()

    def message(self, text: str) -> None:
        """Show one line that stays."""
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201

    def updated(self, record: UpdateRecord) -> None:
        """Show the run after an update."""
        self._panel.updated(record)

    def refresh(self) -> None:
        """Draw the panel anew."""
        self._cell.update(self._drawn())

    def conclude(self, lines: Sequence[str]) -> None:
        """Show these lines below."""
        for line in lines:
            print(line, flush=True)  # noqa: T201

    def _drawn(self) -> Any:
        paper = Console(
            file=io.StringIO(), record=True, width=_WIDTH, force_terminal=True, highlight=False
        )
        paper.print(self._panel)
        style = html.escape(_STYLE)
        code = f'<pre style="{style}">{{code}}</pre>'
        return self._html(paper.export_html(inline_styles=True, code_format=code))
