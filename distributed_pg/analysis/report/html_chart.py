"""Charts for an HTML page: paths for a stretchable SVG, and positions for its labels.

The page stretches the drawing to the available space and overlays the labels as text, so that
they are the same size on a phone as on a desktop.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from distributed_pg.analysis.learning_curves import Array

SIDE = 1000
"""Width and height of the SVG in its own units."""
MOST_POINTS = 800
"""Maximum number of points in a line, however long the run."""


@dataclass(frozen=True, slots=True)
class Label:
    """A text and its position, in per cent of the width and height from the top left."""

    text: str
    left: float
    top: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A line, and optionally dots, over an x axis that starts at 0."""

    title: str
    summary: str
    """A description for screen readers."""
    x_label: str
    line: str
    """The SVG path of the line."""
    dots: str
    """The SVG path of the dots, one zero-length segment each."""
    x_ticks: list[Label]
    y_ticks: list[Label]
    marks: list[Label] = field(default_factory=list)
    """Highlighted points of the line."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The part of the plane that a chart shows: x from 0 to ``right``."""

    right: float
    bottom: float
    top: float

    def place(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Convert points to fractions of the width from the left and the height from the top."""
        height = self.top - self.bottom
        return x / self.right, np.clip((self.top - y) / height, 0.0, 1.0)

    def label(self, text: str, x: float, y: float) -> Label:
        """A label at a point."""
        left, top = self.place(np.array(x), np.array(y))
        return Label(text, round(float(left) * 100, 2), round(float(top) * 100, 2))

    def path(self, x: Array, y: Array, *, dots: bool = False) -> str:
        """The SVG path through the points, or of a dot at each point."""
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
    """Make a chart of ``y`` over ``x``.

    Args:
        title: what y is.
        x_label: what x is.
        x: at least one value; ascending, not negative, the last one above 0.
        y: one value per x.
        dots: one value per x, drawn as dots.
        y_range: the lowest and highest y shown; None shows 0 to slightly above the highest.
        marks: text, x and y of points to mark.
        percent: show y, a fraction, in per cent.

    Returns:
        The chart; long series are thinned by :func:`stride`.
    """
    kept = slice((len(x) - 1) % stride(len(x)), None, stride(len(x)))  # includes the last point
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
    """The step between drawn points that limits ``count`` points to :data:`MOST_POINTS`."""
    return math.ceil(count / MOST_POINTS)


def _ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]


def _texts(values: list[float], *, percent: bool = False, signed: bool = False) -> list[str]:
    """Format the numbers, all in the same unit."""
    if percent:
        return [f"{100 * value:.3g}%" for value in values]
    most = max(map(abs, values))
    unit, sign = (1e6, "M") if most >= 1e6 else (1e3, "k") if most >= 1e4 else (1.0, "")
    form = "+.3g" if signed else ",.4g"
    return [f"{value / unit:{form}}{sign}" if value else "0" for value in values]
