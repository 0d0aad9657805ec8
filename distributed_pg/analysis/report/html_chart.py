"""Charts for an HTML page: paths for an SVG that may be stretched, and where its labels go.

The page stretches the drawing to the room there is and sets the labels as text over it, so that
they have the same size on a phone as on a desk.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from distributed_pg.analysis.learning_curves import Array

SIDE = 1000
"""Width and height of the drawing's coordinates."""
MOST_POINTS = 800
"""A line has no more points than this, however long the run was."""


@dataclass(frozen=True, slots=True)
class Label:
    """A text at a place of the drawing, in per cent of its width and height from the top left."""

    text: str
    left: float
    top: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A line, and perhaps dots, over an x axis that begins at 0."""

    title: str
    summary: str
    """For those who cannot see it."""
    x_label: str
    line: str
    """The SVG path of the line."""
    dots: str
    """The SVG path of the dots, one segment of no length each."""
    x_ticks: list[Label]
    y_ticks: list[Label]
    marks: list[Label] = field(default_factory=list)
    """Points of the line to be told apart."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What part of the plane a chart shows."""

    right: float
    bottom: float
    top: float

    def place(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Shares of the width from the left and of the height from the top."""
        height = self.top - self.bottom
        return x / self.right, np.clip((self.top - y) / height, 0.0, 1.0)

    def label(self, text: str, x: float, y: float) -> Label:
        """A text at a point."""
        left, top = self.place(np.array(x), np.array(y))
        return Label(text, round(float(left) * 100, 2), round(float(top) * 100, 2))

    def path(self, x: Array, y: Array, *, dots: bool = False) -> str:
        """The SVG path through the points, or with a dot at each."""
        left, top = (np.rint(share * SIDE).astype(int).tolist() for share in self.place(x, y))
        points = [f"{a} {b}" for a, b in zip(left, top, strict=True)]
        return "".join(f"M{point}h0" for point in points) if dots else "M" + "L".join(points)


def chart(
    title: str,
    x_label: str,
    x: Array,
    y: Array,
    *,
    dots: Array | None = None,
    y_range: tuple[float, float] | None = None,
    marks: tuple[tuple[str, float, float], ...] = (),
    percent: bool = False,
) -> Chart:
    """A chart of ``y`` over ``x``, ascending and not below 0.

    Args:
        title: what y is.
        x_label: what x is.
        x: at least one value, the last one above 0.
        y: as many.
        dots: as many again, drawn as dots.
        y_range: the lowest and highest y shown; None: from 0 to a little above the highest.
        marks: text, x and y of points to mark.
        percent: whether y is a share, to be shown in per cent.
    """
    kept = slice((len(x) - 1) % stride(len(x)), None, stride(len(x)))  # the last one always
    bottom, top = y_range or (0.0, 1.08 * float(y.max()) or 1.0)
    scale = Scale(float(x[-1]), bottom, top)
    xs, ys = _ticks(0.0, scale.right), _ticks(bottom, top)
    ends = _texts([float(y[0]), float(y[-1])], percent=percent)
    return Chart(
        title,
        f"{title} over {x_label}: {ends[0]} at first, {ends[1]} after {x[-1]:,.0f} {x_label}",
        x_label,
        scale.path(x[kept], y[kept]),
        "" if dots is None else scale.path(x[kept], dots[kept], dots=True),
        [scale.label(text, at, bottom) for text, at in zip(_texts(xs), xs, strict=True)],
        [
            scale.label(text, 0.0, at)
            for text, at in zip(_texts(ys, percent=percent, signed=bottom < 0), ys, strict=True)
        ],
        [scale.label(*mark) for mark in marks],
    )


def stride(count: int) -> int:
    """One in how many of ``count`` points is drawn."""
    return math.ceil(count / MOST_POINTS)


def _ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]


def _texts(values: list[float], *, percent: bool = False, signed: bool = False) -> list[str]:
    """The numbers, all in the same unit."""
    if percent:
        return [f"{100 * value:.3g}%" for value in values]
    most = max(map(abs, values))
    unit, sign = (1e6, "M") if most >= 1e6 else (1e3, "k") if most >= 1e4 else (1.0, "")
    form = "+.3g" if signed else ",.4g"
    return [f"{value / unit:{form}}{sign}" if value else "0" for value in values]
