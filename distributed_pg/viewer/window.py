"""Plays games in a window at real-time speed."""

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("SDL_VIDEO_CENTERED", "1")
os.environ.setdefault("SDL_VIDEO_X11_WMCLASS", "distributed-pg")  # default: the interpreter's name

import pygame

from distributed_pg.envs.pong import FRAMES_PER_SECOND
from distributed_pg.errors import RunError
from distributed_pg.viewer import frame_renderer
from distributed_pg.viewer.playback import GameFrame, Playback

SPEEDS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Multiples of real-time speed."""

PADDLE_ROWS = 4
"""Rows a user's paddle moves per frame; the agent's moves up to 6, the game's own player's 2."""

_NO_DISPLAY = "there is no display to open a window on; the command record makes a video instead"
_UP, _DOWN = (pygame.K_UP, pygame.K_w), (pygame.K_DOWN, pygame.K_s)
_BEHIND = 0.25
"""Seconds of delay beyond which the window stops catching up."""
_PATIENCE = 0.1
"""Longest single wait for input, in seconds: Python handles Ctrl-C only between waits."""


def play(
    checkpoint: str | Path,
    *,
    seed: int = 0,
    greedy: bool = False,
    overlay: bool = False,
    human: bool = False,
    opened: Callable[[], None] = lambda: None,
) -> None:
    """Play evaluation episodes in a window until the user closes it.

    Args:
        checkpoint: a file, or a run's folder or URI; its newest weights play on the right.
        seed: seed of the games and the sampling.
        greedy: take the most probable action instead of sampling.
        overlay: start with the panel that shows what the network sees.
        human: let the user play on the left instead of the game's own player.
        opened: called once the window is open.

    Raises:
        UsageError: there is nothing at ``checkpoint``.
        RunError: the checkpoint cannot be read, or there is no display.
    """
    _open_display()
    try:
        game = Playback.load(checkpoint)
        window = _Window(game, overlay, human)
        opened()
        for episode in itertools.count():
            moments = game.watch(seed, episode, greedy=greedy, before_frame=window.move_paddle)
            if not all(map(window.show, moments)):
                return
    finally:
        pygame.quit()


def _open_display() -> None:
    """Let SDL choose its driver, but refuse one that draws off-screen."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in names):
        raise RunError(_NO_DISPLAY)
    try:
        pygame.display.init()
    except pygame.error as error:
        raise RunError(f"{_NO_DISPLAY} ({error})") from None
    unseen = pygame.display.get_driver() in ("offscreen", "dummy")
    if unseen and not os.environ.get("SDL_VIDEODRIVER"):
        raise RunError(_NO_DISPLAY)


class _Window:
    """Shows frames when they are due and handles the keys."""

    def __init__(self, game: Playback, overlay: bool, human: bool) -> None:
        self._game = game
        self._overlay = overlay
        self._human = human
        self._left = "you" if human else frame_renderer.LEFT_NAME
        self._speed = SPEEDS.index(1.0)
        self._paused = False
        self._closed = False
        self._due = time.perf_counter()
        self._open()

    def show(self, moment: GameFrame) -> bool:
        """Show ``moment`` when due and wait while paused; False once the user closed the window."""
        self._due += 1.0 / (FRAMES_PER_SECOND * SPEEDS[self._speed])
        self._due = max(self._due, time.perf_counter() - _BEHIND)
        if self._skipped(moment):
            return True
        if moment.over:  # until the user starts the next game
            self._paused = True
        self._draw(moment)
        for event in self._events():
            if self._obey(event):
                self._draw(moment)
        return not self._closed

    def move_paddle(self) -> None:
        """Move the user's paddle according to the pressed keys; called before each frame."""
        if self._human:
            pressed = pygame.key.get_pressed()
            up, down = any(pressed[key] for key in _UP), any(pressed[key] for key in _DOWN)
            self._game.env.move_left(PADDLE_ROWS * (down - up))

    def _events(self) -> Iterator[pygame.event.Event]:
        """Yield the user's input until the next frame is due."""
        yield from pygame.event.get()
        while not self._closed:
            if self._paused:
                self._due = time.perf_counter() + _PATIENCE
            left = self._due - time.perf_counter()
            if left < 0.001:
                return
            yield pygame.event.wait(int(1000 * min(left, _PATIENCE)))

    def _skipped(self, moment: GameFrame) -> bool:
        """Whether to skip drawing, which keeps the rate between 15 and 60 pictures a second."""
        if moment.over or self._paused:
            return False
        late = time.perf_counter() > self._due and moment.frame % 4 != 0
        return late or moment.frame % max(1, int(SPEEDS[self._speed])) != 0

    def _open(self) -> None:
        """Open a window with room for the overlay, scaled up to fit the desktop."""
        try:
            desktop = pygame.display.get_desktop_sizes()[0]
            width, height = frame_renderer.picture_size(overlay=True)
            scale = max(1, min(9 * desktop[0] // (10 * width), 9 * desktop[1] // (10 * height)))
            pygame.display.set_mode((width * scale, height * scale), pygame.RESIZABLE)
        except pygame.error as error:
            raise RunError(f"cannot open a window ({error})") from None

    def _draw(self, moment: GameFrame) -> None:
        actions = self._game.config.actions
        picture = frame_renderer.picture(moment, actions, left=self._left, overlay=self._overlay)
        image = pygame.image.frombuffer(picture.tobytes(), picture.size, "RGB")
        surface = pygame.display.get_surface()  # a new one after a resize
        where = image.get_rect().fit(surface.get_rect())
        surface.fill(frame_renderer.BACKGROUND)
        surface.blit(pygame.transform.scale(image, where.size), where)
        pygame.display.flip()
        state = "game over" if moment.over else "paused" if self._paused else "playing"
        title = (
            f"distributed-pg: {self._left} {moment.points[0]}, agent {moment.points[1]}, "
            f"speed {SPEEDS[self._speed]:g}, {state}"
        )
        if pygame.display.get_caption()[0] != title:
            pygame.display.set_caption(title)

    def _obey(self, event: pygame.event.Event) -> bool:
        """Handle ``event``; return whether to redraw."""
        if event.type == pygame.QUIT:
            self._closed = True
        if event.type != pygame.KEYDOWN:
            return event.type == pygame.WINDOWEXPOSED
        faster, slower = (pygame.K_RIGHT, pygame.K_UP), (pygame.K_LEFT, pygame.K_DOWN)
        paddle_keys = (*_UP, *_DOWN) if self._human else ()
        if event.key in (pygame.K_q, pygame.K_ESCAPE):
            self._closed = True
        elif event.key == pygame.K_SPACE:
            self._paused = not self._paused
        elif event.key == pygame.K_o:
            self._overlay = not self._overlay
        elif event.key in paddle_keys:
            return False
        elif event.key in faster:
            self._speed = min(self._speed + 1, len(SPEEDS) - 1)
        elif event.key in slower:
            self._speed = max(self._speed - 1, 0)
        return True
