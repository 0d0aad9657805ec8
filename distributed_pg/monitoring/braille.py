"""A small curve for the terminal, drawn with braille characters, 2 x 4 dots each, or with stars."""

import itertools
import math
from collections.abc import Sequence

_BLANK = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot: left and right column, from the top down."""


def curve(
    values: Sequence[float],
    width: int,
    height: int,
    low: float,
    high: float,
    *,
    braille: bool = True,
) -> list[str]:
    """Draw ``values`` from left to right, what lies beyond ``low`` and ``high`` at the edges.

    Args:
        values: at least one, evenly spaced; a dot stands for the mean of several where there are
            more than dots.
        width: of a line, characters.
        height: lines.
        low: the value at the lower edge.
        high: the value at the upper edge; more than ``low``.
        braille: whether the terminal can show braille; else a dot is a star.

    Returns:
        ``height`` lines of ``width`` characters each.
    """
    across, down = (2, 4) if braille else (1, 1)
    columns, rows = across * width, down * height
    cells = [[0] * width for _ in range(height)]
    before = None
    for column, value in enumerate(_resampled(values, columns)):
        share = (min(max(value, low), high) - low) / (high - low)
        row = round((1.0 - share) * (rows - 1))
        # From the dot before, so that a steep curve has no holes.
        start = row if before is None else before + (row > before) - (row < before)
        for y in range(min(start, row), max(start, row) + 1):
            cells[y // down][column // across] |= _DOTS[column % across][y % down]
        before = row
    return [
        "".join(chr(_BLANK + cell) if braille else " *"[cell] for cell in line) for line in cells
    ]


def _resampled(values: Sequence[float], count: int) -> list[float]:
    """As many means of neighbours as there are dots, or fewer if there are fewer values."""
    count = min(count, len(values))
    edges = [index * len(values) // count for index in range(count + 1)]
    return [
        math.fsum(values[start:end]) / (end - start) for start, end in itertools.pairwise(edges)
    ]
