"""Draws a small curve in the terminal, with braille characters of 2 x 4 dots or with stars."""

import itertools
import math
from collections.abc import Sequence

_BLANK = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot: left and right column, top to bottom."""


def curve(
    values: Sequence[float],
    width: int,
    height: int,
    low: float,
    high: float,
    *,
    braille: bool = True,
) -> list[str]:
    """Draw ``values`` from left to right, clipped to ``low`` and ``high``.

    Args:
        values: at least one, evenly spaced; averaged if there are more values than dots.
        width: characters per line.
        height: number of lines.
        low: the value at the lower edge.
        high: the value at the upper edge; greater than ``low``.
        braille: draw with braille characters instead of stars.

    Returns:
        ``height`` lines of ``width`` characters each.
    """
    across, down = (2, 4) if braille else (1, 1)
    columns, rows = across * width, down * height
    cells = [[0] * width for _ in range(height)]
    previous = None
    for column, value in enumerate(_resampled(values, columns)):
        share = (min(max(value, low), high) - low) / (high - low)
        row = round((1.0 - share) * (rows - 1))
        # Start next to the previous dot, so that a steep curve has no gaps.
        start = row if previous is None else previous + (row > previous) - (row < previous)
        for y in range(min(start, row), max(start, row) + 1):
            cells[y // down][column // across] |= _DOTS[column % across][y % down]
        previous = row
    return [
        "".join(chr(_BLANK + cell) if braille else " *"[cell] for cell in line) for line in cells
    ]


def _resampled(values: Sequence[float], count: int) -> list[float]:
    """Average neighbouring values down to ``count`` values; fewer are returned as they are."""
    count = min(count, len(values))
    edges = [index * len(values) // count for index in range(count + 1)]
    return [
        math.fsum(values[start:end]) / (end - start) for start, end in itertools.pairwise(edges)
    ]
