"""What the hidden units see: each unit's weights as a picture of the field."""

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distributed_pg.algo.policy import Floats
from distributed_pg.envs.pong import frame_shape
from distributed_pg.storage.policy_file import TrainedPolicy

if TYPE_CHECKING:
    from matplotlib.colors import LinearSegmentedColormap

# Blue and orange are distinct to readers who cannot tell red from green.
LIGHT = "#1f5fa8", "#ffffff", "#c8500a"
"""Colours of the most negative weight, of 0 and of the most positive weight; light mode."""
DARK = "#79b4f2", "#201d19", "#ff9a52"
"""The same for dark mode."""
_STEPS = 31
"""Number of colours. A finer scale is invisible in a unit's noise and makes larger files."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A hidden unit of the policy."""

    weights: Floats
    """Incoming weights, one per pixel, (rows, columns) of the difference frame; to the right, those
    of the current frame if the policy sees it, (rows, 2 columns)."""
    action: str
    """The action it favours most when active."""
    size: float
    """Euclidean norm of its weights to the actions."""
    current_frame: bool = False
    """Whether there are weights of the current frame."""


def strongest_units(trained: TrainedPolicy, count: int) -> list[Unit]:
    """Return up to ``count`` units with the largest outgoing weights, largest first."""
    config, policy = trained.config, trained.policy
    logits = policy.w2.copy()
    logits[:, -1] = 0.0  # the last action has logit 0; this column is the value head
    sizes, favoured = np.linalg.norm(logits, axis=1), logits.argmax(axis=1)
    shape = frame_shape(config.crop)
    return [
        Unit(
            np.hstack([plane[:, j].reshape(shape) for plane in policy.planes]),
            config.actions[favoured[j]],
            float(sizes[j]),
            policy.sees_current_frame,
        )
        for j in np.argsort(-sizes, kind="stable")[:count]
    ]


def scale_limit(units: list[Unit]) -> float:
    """The weight at which the shared colour scale ends; 99.5% of all weights lie within."""
    limit = np.percentile([np.abs(unit.weights) for unit in units], 99.5)
    return float(limit) or 1.0


def columns_of(units: list[Unit]) -> int:
    """Number of columns in a grid of the units' pictures, wider than it is high."""
    height, width = units[0].weights.shape
    return min(len(units), math.ceil(math.sqrt(1.6 * len(units) * height / width)))


def tiled(units: list[Unit], gap: tuple[int, int]) -> NDArray[np.float32]:
    """Arrange the units' pictures in a grid, with NaN in the gaps.

    Args:
        units: at least one.
        gap: rows above each picture, and columns between two pictures.

    Returns:
        The grid, float32 (rows, columns) in pixels.
    """
    columns, (height, width) = columns_of(units), units[0].weights.shape
    rows = math.ceil(len(units) / columns)
    shape = rows * (height + gap[0]), columns * (width + gap[1]) - gap[1]
    sheet = np.full(shape, np.nan, np.float32)
    for number, unit in enumerate(units):
        row, column = divmod(number, columns)
        top, left = row * (height + gap[0]) + gap[0], column * (width + gap[1])
        sheet[top : top + height, left : left + width] = unit.weights
    return sheet


def weights_colours(low: str, zero: str, high: str) -> "LinearSegmentedColormap":
    """A colour map through the colours of the most negative weight, 0 and the most positive."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("weights", [low, zero, high], _STEPS)


def weights_png(units: list[Unit], colours: tuple[str, str, str]) -> bytes:
    """The units' grid as a PNG file with transparent gaps.

    Args:
        units: at least one.
        colours: as in :data:`LIGHT` or :data:`DARK`.
    """
    from PIL import Image

    sheet = tiled(units, gap=(6, 6))[6:]
    steps = np.clip(sheet / scale_limit(units), -1, 1) * (_STEPS // 2) + _STEPS // 2
    # Palette entry 0 is the gap; the colours follow.
    image = Image.fromarray(np.where(np.isnan(steps), 0, np.rint(steps) + 1).astype(np.uint8))
    palette = weights_colours(*colours)(np.arange(-1, _STEPS), bytes=True)[:, :3]
    image.putpalette(np.asarray(palette, np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, transparency=0)
    return file.getvalue()
