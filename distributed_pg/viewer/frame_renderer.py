"""Draws a frame of a game as an image: the screen, the score and what the network sees."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from distributed_pg.envs.pong import SCREEN_HEIGHT, SCREEN_WIDTH
from distributed_pg.viewer.playback import STILL, GameFrame

LEFT_NAME = "opponent"
"""Label of the left side when the game's own player plays it."""

# Atari pixels are wider than they are high.
_PIXEL = (3, 2)
_WIDTH, _HEIGHT = SCREEN_WIDTH * _PIXEL[0], SCREEN_HEIGHT * _PIXEL[1]
_STRIP = 36
_PANEL = 272
_MARGIN = 16

BACKGROUND, GREY, WHITE = (20, 20, 22), (150, 150, 155), (236, 236, 236)
ORANGE, GREEN = (213, 130, 74), (92, 186, 92)
"""Colours of the left and the right side in the game."""
FIELD = (144, 72, 17)
APPEARED, VANISHED, UNCHANGED = (120, 220, 255), (235, 80, 80), (0, 0, 0)
"""Colours of difference-frame pixels with value 1, -1 and 0; those of STILL are grey."""

_SEEN_COLOURS = np.array([UNCHANGED, APPEARED, GREY, VANISHED], np.uint8)  # index -1 is last
_FONT = ImageFont.load_default(18)
_SMALL = ImageFont.load_default(14)


def picture_size(*, overlay: bool) -> tuple[int, int]:
    """Width and height of a :func:`picture` in pixels; both even, as H.264 requires."""
    return _WIDTH + (_PANEL if overlay else 0), _STRIP + _HEIGHT


def picture(
    moment: GameFrame, actions: Sequence[str], *, left: str = LEFT_NAME, overlay: bool = False
) -> Image.Image:
    """Draw the screen below a strip with the points, the step and the probability of UP.

    Args:
        moment: the frame to draw.
        actions: names of the policy's actions.
        left: label of the left side.
        overlay: add a panel on the right with the observation and the action probabilities.

    Returns:
        An RGB image of size :func:`picture_size`.
    """
    image = Image.new("RGB", picture_size(overlay=overlay), BACKGROUND)
    image.paste(_scaled(moment.screen, _PIXEL), (0, _STRIP))
    draw = ImageDraw.Draw(image)
    middle = _STRIP // 2
    draw.text((_MARGIN, middle), f"{left} {moment.points[0]}", ORANGE, _FONT, "lm")
    draw.text((_WIDTH - _MARGIN, middle), f"agent {moment.points[1]}", GREEN, _FONT, "rm")
    # Left-aligned at fixed positions, so that the text does not jump as the numbers change.
    draw.text((_WIDTH // 2 - 98, middle), f"step {moment.step}", GREY, _FONT, "lm")
    if overlay:
        _draw_panel(image, draw, moment, actions)
    else:
        up = f"P(UP) {probability_of_up(moment, actions):.2f}"
        draw.text((_WIDTH // 2 + 14, middle), up, GREY, _FONT, "lm")
    return image


def probability_of_up(moment: GameFrame, actions: Sequence[str]) -> float:
    """The probability that the policy moves its paddle up."""
    pairs = zip(actions, moment.probabilities, strict=True)
    return sum(probability for name, probability in pairs if name.startswith("UP"))


def palette() -> Image.Image:
    """The palette for a GIF of these images, in ffmpeg's format: a 16x16 RGB image."""
    text = [
        mixed
        for colour in (GREY, WHITE, ORANGE, GREEN, APPEARED, VANISHED)
        for mixed in _between(BACKGROUND, colour)
    ]
    colours = [*text, UNCHANGED, FIELD]
    colours += [colours[0]] * (256 - len(colours))
    return Image.fromarray(np.array(colours, np.uint8).reshape(16, 16, 3))


def _draw_panel(
    image: Image.Image, draw: ImageDraw.ImageDraw, moment: GameFrame, actions: Sequence[str]
) -> None:
    left, row = _WIDTH + _MARGIN, _STRIP
    draw.text((left, _STRIP // 2), "what the network sees", WHITE, _FONT, "lm")
    seen = _scaled(_SEEN_COLOURS[moment.seen], _PIXEL)
    image.paste(seen, (left, row))
    row += seen.height + 16
    draw.text((left, row), "appeared", APPEARED, _SMALL, "lm")
    draw.text((left + 80, row), "vanished", VANISHED, _SMALL, "lm")
    if STILL in moment.seen:
        draw.text((left + 160, row), "stands still", GREY, _SMALL, "lm")
    row += 36
    draw.text((left, row), "and what it would do", WHITE, _FONT, "lm")
    row += 28
    for name, probability in zip(actions, moment.probabilities, strict=True):
        draw.text((left, row), name, GREY, _SMALL, "lm")
        draw.text((left + 240, row), f"{probability:.2f}", GREY, _SMALL, "rm")
        bar = left + 96
        draw.rectangle((bar, row - 6, bar + 100, row + 6), UNCHANGED)
        draw.rectangle((bar, row - 6, bar + round(100 * probability), row + 6), WHITE)
        row += 22


def _scaled(pixels: NDArray[np.uint8], factors: tuple[int, int]) -> Image.Image:
    """An RGB array as an image; ``factors`` are the width and height of one array pixel."""
    height, width, _ = pixels.shape
    size = (width * factors[0], height * factors[1])
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def _between(
    first: tuple[int, int, int], last: tuple[int, int, int], steps: int = 8
) -> list[tuple[int, ...]]:
    """Colours from ``first`` to ``last``, as on the anti-aliased edges of letters."""
    return [
        tuple(round(a + (b - a) * step / steps) for a, b in zip(first, last, strict=True))
        for step in range(steps + 1)
    ]
