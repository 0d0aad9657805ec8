"""Plots learning curves and the weights of hidden units (needs the [plot] extra)."""

import io
import itertools
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import patheffects, rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from distributed_pg.analysis.hidden_units import (
    LIGHT,
    Unit,
    columns_of,
    scale_limit,
    tiled,
    weights_colours,
)
from distributed_pg.analysis.learning_curves import (
    Array,
    By,
    Curve,
    Group,
    group_curves,
    load_curves,
)
from distributed_pg.analysis.milestones import LEVELS, first_at, level_name
from distributed_pg.errors import UsageError, writing
from distributed_pg.storage.tensor_file import write_atomically

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Okabe and Ito's colours suit colour-blind readers; in greyscale the line styles differ.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_GRID, _FAINT, _INK = "#dddddd", "#9db9d8", "#222222"
_LABELS = {"episodes": "episodes", "minutes": "minutes", "frames": "emulated frames"}
_FEW_RUNS = 12
"""Number of runs up to which each can be told from the others."""
_LEGEND_CHARACTERS = 70
"""Length of a line that fits the narrowest picture."""
_CRISP: dict[str, Any] = {"interpolation": "nearest", "aspect": "equal"}
_WEIGHTS_CAPTION = "weight of a pixel{}; above each unit the action it favours, and how much"
_PLANES = {False: "'s change", True: "'s change, and to the right of the pixel itself"}
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # keeps text as text
    "svg.hashsalt": "distributed_pg",  # makes files reproducible
}


class _Picture(Figure):
    """A figure that a notebook can show without pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        with rc_context(_STYLE):
            self.savefig(file, format="png", dpi=100)
        return file.getvalue()


def plot(*runs: str | Path, by: By | Sequence[By] = "frames", title: str = "") -> Figure:
    """Plot the running mean of the reward of one or more runs.

    Args:
        runs: folders or URIs of runs, or folders of sweeps, each of which stands for its runs. Runs
            that differ only in the seed form a group, drawn with its interquartile mean and 95%
            confidence interval.
        by: the x axis, one panel each: ``"frames"``, ``"episodes"`` or ``"minutes"``.
        title: title of the figure.

    Returns:
        The figure; a notebook displays it.

    Raises:
        UsageError: a run does not exist, or none is given.
        RunError: a run cannot be read, is damaged, or has no updates yet.
    """
    if not runs:
        raise UsageError("runs: none is given; name at least one")
    groups = group_curves([curve for run in runs for curve in load_curves(str(run))])
    return curves_figure(groups, (by,) if isinstance(by, str) else tuple(by), title)


def curves_figure(groups: list[Group], by: tuple[By, ...], title: str = "") -> Figure:
    """Plot the running mean of the reward.

    Args:
        groups: at least one. A group of several runs is drawn as thin lines, a strong line for
            their interquartile mean and a band for its 95% confidence interval. A single run
            plotted alone also shows the mean of each update.
        by: the x axes, one panel each.
        title: title of the figure.

    Returns:
        The figure.
    """
    with rc_context(_STYLE):
        figure = _Picture(figsize=(max(5.0 * len(by), 6.5), 4.2), layout="constrained")
        axes = figure.subplots(1, len(by), sharey=True, squeeze=False)[0]
        for axis, quantity in zip(axes, by, strict=True):
            _curves_panel(axis, groups, quantity)
        axes[0].set_ylabel("running mean of the reward\n(points won minus points lost)")
        _add_legend(figure, _legend(groups))
        figure.suptitle(title)
    return figure


def weights_figure(units: list[Unit], title: str = "") -> Figure:
    """Plot the weights of hidden units, one picture per unit.

    Args:
        units: at least one.
        title: title of the figure.

    Returns:
        The figure.
    """
    gap = 14, 6
    sheet, limit = tiled(units, gap), scale_limit(units)
    tile_height, tile_width = units[0].weights.shape
    columns = columns_of(units)
    inches = 1.25 * columns * tile_width / tile_height
    high, top, bottom, side = inches * sheet.shape[0] / sheet.shape[1], 0.35, 0.75, 0.2
    with rc_context(_STYLE):
        figure = _Picture(figsize=(inches + 2 * side, high + top + bottom))
        frame = (side, bottom, inches, high), (side, bottom - 0.2, inches, 0.08)
        axis, bar = (figure.add_axes(_share(figure, *inch)) for inch in frame)
        image = axis.imshow(sheet, weights_colours(*LIGHT), vmin=-limit, vmax=limit, **_CRISP)
        axis.axis("off")
        for number, unit in enumerate(units):
            row, column = divmod(number, columns)
            x, y = column * (tile_width + gap[1]), row * (tile_height + gap[0]) + gap[0] - 3
            axis.text(x, y, f"{unit.action} {unit.size:.2f}", fontsize=7.5, color=_INK)
        caption = _WEIGHTS_CAPTION.format(_PLANES[units[0].current_frame])
        scale = figure.colorbar(image, bar, orientation="horizontal", label=caption)
        scale.outline.set_visible(False)
        figure.suptitle(title, y=1 - 0.12 / figure.get_figheight(), va="top")
    return figure


def write_figure(figure: Figure, out: Path) -> None:
    """Write a figure. The same figure always gives the same bytes.

    Args:
        figure: the figure.
        out: the file; its suffix selects PNG, SVG or PDF.

    Raises:
        RunError: ``out`` cannot be written.
    """
    kind, file = out.suffix.lower()[1:], io.BytesIO()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with rc_context(_STYLE):
        figure.savefig(file, format=kind, dpi=160, metadata=dates.get(kind))
    with writing(f"out: {out}"):
        write_atomically(out, file.getvalue())


def _share(figure: Figure, *inches: float) -> tuple[float, float, float, float]:
    """Convert a rectangle from inches to fractions of the figure."""
    (left, bottom, wide, high), (width, height) = inches, figure.get_size_inches()
    return left / width, bottom / height, wide / width, high / height


def _curves_panel(axis: "Axes", groups: list[Group], by: By) -> None:
    alone = len(groups) == 1
    faint = 0.5 if sum(len(group.curves) for group in groups) <= _FEW_RUNS else 0.2
    for group, (colour, style) in zip(groups, _looks(), strict=False):
        if len(group.curves) > 1:
            for curve in group.curves:
                x, y = curve.against(by), curve.running_mean
                axis.plot(x, y, color=colour, linewidth=0.7, alpha=faint, zorder=1.5)
        elif alone:
            _update_dots(axis, group.curves[0], by)
        x, mean, low, high = group.mean(by)
        if len(group.curves) > 1:
            axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(x, mean, color=colour, linestyle=style, linewidth=2.2, zorder=3)
        _mark_milestones(axis, x, mean, by, colour, text=alone)
    axis.axhline(0.0, color=_INK, linewidth=0.8, zorder=1)
    axis.set(xlabel=_LABELS[by], xlim=(0, None), ylim=(-21.5, 21.5), yticks=range(-20, 21, 5))
    axis.margins(x=0.02)
    if by == "frames":
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def _update_dots(axis: "Axes", curve: Curve, by: By) -> None:
    dots: dict[str, Any] = {"markersize": 2, "color": _FAINT, "rasterized": True}
    axis.plot(curve.against(by), curve.update_mean, ".", zorder=1, **dots)


def _mark_milestones(
    axis: "Axes", x: Array, mean: Array, by: By, colour: str, *, text: bool
) -> None:
    """Draw a ring where the mean reaches each level; with ``text``, label it with its x value."""
    # One update may reach several levels.
    for index in dict.fromkeys(first_at(mean, level) for level in LEVELS):
        if index is None:
            continue
        ring: dict[str, Any] = {"markerfacecolor": "white", "markersize": 5, "zorder": 3}
        axis.plot(x[index], mean[index], "o", color=colour, **ring)
        if text:
            number = EngFormatter(places=1, sep="")(x[index]) if by == "frames" else None
            note = axis.annotate(
                number or f"{x[index]:.{1 if by == 'minutes' else 0}f}",
                (x[index], mean[index]),
                (7, -11),
                textcoords="offset points",
                fontsize=8.5,
                color=_INK,
            )
            note.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground="white")])


def _legend(groups: list[Group]) -> "list[Artist]":
    handles: list[Artist] = []
    for group, (colour, style) in zip(groups, _looks(), strict=False):
        count = len(group.curves)
        label = (
            group.label
            if count == 1 or group.label.endswith(" runs")
            else (f"{group.label} ({count} runs)")
        )
        handles.append(Line2D([], [], color=colour, linestyle=style, linewidth=2.2, label=label))
    if any(len(group.curves) > 1 for group in groups):
        handles.append(Line2D([], [], color="#777777", linewidth=0.7, label="one run"))
        band = "strong line: interquartile mean; band: 95% interval"
        handles.append(Patch(facecolor="#777777", alpha=0.25, label=band))
    elif len(groups) == 1:
        dots: dict[str, Any] = {"marker": ".", "linestyle": "", "color": _FAINT}
        handles.append(Line2D([], [], label="mean of one update", **dots))
    ring: dict[str, Any] = {"marker": "o", "markersize": 5, "markerfacecolor": "white"}
    label = f"mean reaches {', '.join(map(level_name, LEVELS))}"
    handles.append(Line2D([], [], linestyle="", color="#777777", label=label, **ring))
    return handles


def _add_legend(figure: Figure, handles: "list[Artist]") -> None:
    """In two columns below the panels, or, where these are too wide, in one, with lines broken."""
    add = partial(figure.legend, handles=handles, loc="outside lower center")
    legend = add(ncols=2)
    if legend.get_window_extent().width > figure.bbox.width:
        legend.remove()
        for text in add(ncols=1).get_texts():
            text.set_text(textwrap.fill(text.get_text(), _LEGEND_CHARACTERS))


def _looks() -> "itertools.cycle[tuple[str, Any]]":
    """Cycle through pairs of colour and line style, one per group."""
    pairs = itertools.product(range(len(STYLES)), range(len(COLOURS)))
    return itertools.cycle(
        (COLOURS[colour], STYLES[(colour + shift) % len(STYLES)]) for shift, colour in pairs
    )
