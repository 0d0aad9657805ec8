"""Draws a moment of a game as a picture: the screen, the score, and what the network sees."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from distributed_pg.envs.pong import SCREEN_HEIGHT, SCREEN_WIDTH
from distributed_pg.viewer.playback import GameFrame

LEFT_NAME = "game"
"""Who plays on the left, if nobody else does."""

# Atari's pixels are wider than high.
_PIXEL = (3, 2)
_WIDTH, _HEIGHT = SCREEN_WIDTH * _PIXEL[0], SCREEN_HEIGHT * _PIXEL[1]
_STRIP = 36
_PANEL = 272
_MARGIN = 16

BACKGROUND, GREY, WHITE = (20, 20, 22), (150, 150, 155), (236, 236, 236)
ORANGE, GREEN = (213, 130, 74), (92, 186, 92)
"""The colours of the left and the right side in the game."""
FIELD = (144, 72, 17)
APPEARED, VANISHED, UNCHANGED = (120, 220, 255), (235, 80, 80), (0, 0, 0)
"""Where the difference frame is 1, -1 and 0."""

_SEEN_COLOURS = np.array([UNCHANGED, APPEARED, VANISHED], np.uint8)  # -1 is the last
_FONT = ImageFont.load_default(18)
_SMALL = ImageFont.load_default(14)


def picture_size(*, overlay: bool) -> tuple[int, int]:
    """Width and height of what :func:`picture` returns; both even, as H.264 wants them."""
    return _WIDTH + (_PANEL if overlay else 0), _STRIP + _HEIGHT


def picture(
    moment: GameFrame, actions: Sequence[str], *, left: str = LEFT_NAME, overlay: bool = False
) -> Image.Image:
    """The screen below a strip with points, step and probability of UP, as RGB.

    Args:
        moment: what to draw.
        actions: names of the policy's actions.
        left: who plays on the left.
        overlay: add what the network sees, and what it makes of it, on the right.
    """
    image = Image.new("RGB", picture_size(overlay=overlay), BACKGROUND)
    image.paste(_scaled(moment.screen, _PIXEL), (0, _STRIP))
    draw = ImageDraw.Draw(image)
    middle = _STRIP // 2
    draw.text((_MARGIN, middle), f"{left} {moment.points[0]}", ORANGE, _FONT, "lm")
    draw.text((_WIDTH - _MARGIN, middle), f"agent {moment.points[1]}", GREEN, _FONT, "rm")
    # Left-bound at fixed places, so that the text does not move while the numbers change.
    draw.text((_WIDTH // 2 - 98, middle), f"step {moment.step}", GREY, _FONT, "lm")
    if overlay:
        _draw_panel(image, draw, moment, actions)
    else:
        up = f"P(UP) {probability_of_up(moment, actions):.2f}"
        draw.text((_WIDTH // 2 + 14, middle), up, GREY, _FONT, "lm")
    return image


def probability_of_up(moment: GameFrame, actions: Sequence[str]) -> float:
    """How probable it is that the policy moves its paddle up."""
    pairs = zip(actions, moment.probabilities, strict=True)
    return sum(probability for name, probability in pairs if name.startswith("UP"))


def palette() -> Image.Image:
    """The colours a GIF of these pictures needs, as ffmpeg takes a palette: 16x16 RGB."""
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
    """An RGB array as a picture in which each pixel is ``factors`` wide and high."""
    height, width, _ = pixels.shape
    size = (width * factors[0], height * factors[1])
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def _between(
    one: tuple[int, int, int], other: tuple[int, int, int], steps: int = 8
) -> list[tuple[int, ...]]:
    """Colours from ``one`` to ``other``, as at the edges of letters."""
    return [
        tuple(round(a + (b - a) * step / steps) for a, b in zip(one, other, strict=True))
        for step in range(steps + 1)
    ]
