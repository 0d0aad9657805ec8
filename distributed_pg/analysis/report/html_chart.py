"""Charts for an HTML page: paths for a stretchable SVG, and positions for its labels.

The page stretches the drawing to the available space and overlays the labels as text, so that
they are the same size on a phone as on a desktop.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from distributed_pg.analysis.learning_curves import Array, Group

SIDE = 1000
"""Width and height of the SVG in its own units."""
MOST_POINTS = 800
"""Maximum number of points in a line, however long the run."""

_MOST_POINTS_OF_A_RUN = 250
"""The same for each of many thin lines."""


@dataclass(frozen=True, slots=True)
class Label:
    """A text and its position, in per cent of the width and height from the top left."""

    text: str
    left: float
    top: float


@dataclass(frozen=True, slots=True)
class GroupPaths:
    """The SVG paths of a group of runs."""

    label: str
    look: int
    """Number of its colour and line style."""
    mean: str
    band: str
    """The interval of the mean; empty for a single run."""
    runs: str
    """A line per run; empty if they are not drawn."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A line, and optionally dots, or groups of runs, over an x axis that starts at 0."""

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
    groups: list[GroupPaths] = field(default_factory=list)
    """Groups of runs, drawn instead of the line."""


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
    kept = _kept(len(x))
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


def group_chart(group: Group, look: int, right: float, y_range: tuple[float, float]) -> Chart:
    """Make a chart of the running means of a group of runs by emulated frames.

    Args:
        group: the runs; its label is the title.
        look: number of its colour and line style.
        right: the highest number of frames shown.
        y_range: the lowest and the highest mean shown.
    """
    scale, (x, mean, low, high) = Scale(right, *y_range), group.mean("frames")
    xs, ys = _ticks(0.0, right), _ticks(*y_range)
    kept, several = _kept(len(x)), len(group.curves) > 1
    end = f"{mean[-1]:+.1f} after {x[-1]:,.0f} emulated frames" if len(x) else "no common frames"
    paths = GroupPaths(
        group.label,
        look,
        scale.path(x[kept], mean[kept]) if len(x) else "",
        _band(scale, x[kept], low[kept], high[kept]) if several and len(x) else "",
        _run_lines(scale, group) if several else "",
    )
    return Chart(
        group.label,
        f"{group.label}: {end}",
        "emulated frames",
        "",
        "",
        [scale.label(text, at, y_range[0]) for text, at in zip(_texts(xs), xs, strict=True)],
        [scale.label(text, 0.0, at) for text, at in zip(_texts(ys, signed=True), ys, strict=True)],
        groups=[paths],
    )


def overlaid(title: str, charts: list[Chart]) -> Chart:
    """Put the groups of several charts of :func:`group_chart` into one, without single runs."""
    groups = [replace(group, runs="") for chart in charts for group in chart.groups]
    summary = "; ".join(chart.summary for chart in charts)
    return replace(charts[0], title=title, summary=f"{title}. {summary}", groups=groups)


def stride(count: int, most: int = MOST_POINTS) -> int:
    """The step between drawn points that limits ``count`` points to ``most``."""
    return math.ceil(count / most)


def _kept(count: int, most: int = MOST_POINTS) -> slice:
    """The points to draw; includes the last one."""
    step = max(1, stride(count, most))
    return slice((count - 1) % step, None, step)


def _band(scale: Scale, x: Array, low: Array, high: Array) -> str:
    there, back = scale.path(x, high), scale.path(x[::-1], low[::-1])
    return f"{there}L{back[1:]}Z"


def _run_lines(scale: Scale, group: Group) -> str:
    lines = []
    for curve in group.curves:
        kept = _kept(len(curve.frames), _MOST_POINTS_OF_A_RUN)
        lines.append(scale.path(curve.frames[kept], curve.running_mean[kept]))
    return "".join(lines)


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
