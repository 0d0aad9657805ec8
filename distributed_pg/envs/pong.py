"""Atari Pong as difference frames; the seed and the actions determine an episode."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import index
from typing import Any, SupportsIndex

import ale_py
import gymnasium
import numpy as np
from ale_py import Action, ALEInterface, roms
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from distributed_pg.errors import ConfigError, RomNotFoundError, one_line

PONG_ACTIONS = {
    "NOOP": Action.NOOP,
    "FIRE": Action.FIRE,
    "UP": Action.RIGHT,
    "DOWN": Action.LEFT,
    "UPFIRE": Action.RIGHTFIRE,
    "DOWNFIRE": Action.LEFTFIRE,
}
"""Pong's six actions. ALE names them after the paddle knob: turning it right moves up."""

SCREEN_HEIGHT, SCREEN_WIDTH = 210, 160
FRAMES_PER_SECOND = 60
"""Emulated frames per second of real play."""

# Palette index -> 1 if the classic script keeps the pixel, 0 if it erases it. The script erases
# red values 144, 109 and 0. In Pong these are palette indices 34 (the field), 228 (the field in the
# two frames after a reset) and 0 (the border).
_BACKGROUND = (34, 228, 0)
_FOREGROUND = np.ones(256, np.float32)
_FOREGROUND[list(_BACKGROUND)] = 0.0
_NO_PIXELS, _NO_VALUES = np.empty(0, np.intp), np.empty(0, np.float32)


Crop = tuple[int, int, int, int]
"""Visible part of the screen: top, bottom, left, right; bottom and right are exclusive."""


def _check_names(actions: Sequence[str], render_mode: str | None) -> None:
    unknown = [name for name in actions if name not in PONG_ACTIONS]
    if unknown:
        raise ConfigError(f"actions: {unknown[0]!r} is not one of {', '.join(PONG_ACTIONS)}")
    if render_mode not in (None, *PongEnv.metadata["render_modes"]):
        raise ConfigError(f"render_mode: {render_mode!r} is not one of human, rgb_array, None")


def frame_shape(crop: Crop) -> tuple[int, int]:
    """Rows and columns of a frame, which keeps every second pixel of ``crop``."""
    top, bottom, left, right = crop
    return (bottom - top + 1) // 2, (right - left + 1) // 2


def observation_shape(crop: Crop, *, current_frame: bool) -> tuple[int, ...]:
    """(rows, columns), or (2, rows, columns) with the current frame."""
    return (2, *frame_shape(crop)) if current_frame else frame_shape(crop)


def _space(crop: Crop, *, current_frame: bool) -> "spaces.Box[np.int8]":
    shape = observation_shape(crop, current_frame=current_frame)
    if not current_frame:
        return spaces.Box(-1, 1, shape, np.int8)
    lowest = np.zeros(shape, np.int8)
    lowest[0] = -1
    return spaces.Box(lowest, np.ones_like(lowest), dtype=np.int8)


@dataclass(frozen=True, slots=True)
class RawScreen:
    """What compiled code reads instead of calling :meth:`PongEnv.observe`."""

    screen: NDArray[np.uint64]
    """The screen's palette bytes after each :meth:`PongEnv.look`, eight in a word, (210, 20)."""
    before: NDArray[np.uint64]
    """The words of the visible rows as they were before, at first at the start, (rows, 20)."""
    seen: NDArray[np.uint64]
    """A byte of ones in a word for each visible column, (20,)."""
    foreground: NDArray[np.float32]
    """1 for palette bytes that are kept, 0 for the background, (256,)."""
    crop: NDArray[np.intp]
    """First row, first column, and number of columns of the difference frame, (3,)."""


class PongEnv(gymnasium.Env[NDArray[np.int8], np.int64]):
    """Pong from raw pixels, observed as the difference between two frames.

    The defaults match ``ALE/Pong-v5``: a step is 4 emulated frames, and each frame repeats the last
    applied action with probability 0.25. An observation is an int8 array (80, 80) in -1..1: the
    current frame minus the previous one, after cropping to rows 35 to 195, keeping every second
    pixel and erasing the background. The first observation of an episode is all zeros.

    With ``current_frame``, an observation is the difference frame and the current frame, whose
    values are 0 and 1: int8 (2, 80, 80). The first frame of an episode is then seen coming up on a
    blank screen: its difference frame is the frame itself.

    ``reset`` restores the emulator state saved after the first reset, and all random numbers come
    from ``np_random``. So ``reset(seed=s)`` takes well under a millisecond, and the episode depends
    only on ``s`` and the actions.

    Args:
        actions: names of actions 0, 1, ...; a subset of :data:`PONG_ACTIONS`.
        crop: the visible part of the screen, in pixels.
        current_frame: observe the current frame, too, not only the difference.
        frame_skip: emulated frames per step.
        repeat_action_probability: probability that a frame repeats the last applied action.
        frame_limit: emulated frames after which an episode is truncated.
        render_mode: ``"rgb_array"``, ``"human"`` (ALE's own window) or None.

    Raises:
        ConfigError: an action or the render mode is unknown.
        RomNotFoundError: ale-py has no Pong ROM.
    """

    metadata = {"render_modes": ["human", "rgb_array"]}  # noqa: RUF012
    action_space: spaces.Discrete

    def __init__(
        self,
        *,
        actions: Sequence[str] = ("UP", "DOWN"),
        crop: Crop = (35, 195, 0, 160),
        current_frame: bool = False,
        frame_skip: int = 4,
        repeat_action_probability: float = 0.25,
        frame_limit: int = 108_000,
        render_mode: str | None = None,
    ) -> None:
        _check_names(actions, render_mode)
        self.render_mode = render_mode
        self.metadata = PongEnv.metadata | {"render_fps": FRAMES_PER_SECOND // frame_skip}
        self.frame_skip = frame_skip
        self.repeat_action_probability = repeat_action_probability
        self.emulator_seconds = 0.0
        """Seconds spent inside the emulator since the environment was created."""

        self.action_space = spaces.Discrete(len(actions))
        self._sees_frame = current_frame
        self.observation_space = _space(crop, current_frame=current_frame)
        # A dict, because a list would accept -1. It stays empty until the first reset, so the
        # lookup that every step makes also catches a step before reset.
        self._actions: dict[int, Action] = {}
        self._all_actions = {i: PONG_ACTIONS[name] for i, name in enumerate(actions)}
        self._ale = load_pong(frame_limit, display=render_mode == "human")
        self._ale.reset_game()
        self._start = self._ale.cloneState()
        self._start_rgb = self._ale.getScreenRGB()
        # The emulator writes into _screen; _visible is a view of the observed part.
        self._screen = self._ale.getScreen()
        top, bottom, left, right = crop
        self._visible = self._screen[top:bottom:2, left:right:2]
        self._crop = crop
        self._start_frame = self._visible.copy()
        # The last two frames, written alternately.
        self._frames = np.empty((2, *frame_shape(crop)), np.uint8)
        self._flat = self._frames.reshape(2, -1)
        self._flat_0, self._flat_1 = self._flat
        self._changed = np.empty(self._flat.shape[1], np.bool_)
        self._newest = 0
        self._applied = Action.NOOP
        self._repeats = self._sticky_draws()
        self._at_start = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Start an episode; see :meth:`gymnasium.Env.reset`.

        Args:
            seed: reseeds ``np_random``; None continues its stream.
            options: ignored.

        Returns:
            The first observation, and the info dict with ``emulated_frames``.
        """
        super().reset(seed=seed, options=options)
        if seed is not None:
            self._repeats = self._sticky_draws()
        self._actions = self._all_actions
        self._ale.restoreState(self._start)
        self._applied = Action.NOOP
        self._frames[self._newest] = self._start_frame
        self._at_start = True
        pixels, values = self.first_frame() if self._sees_frame else (_NO_PIXELS, _NO_VALUES)
        return self._observation(pixels, values), self._info()

    def step(
        self, action: np.int64 | int
    ) -> tuple[NDArray[np.int8], float, bool, bool, dict[str, Any]]:
        """Apply ``action`` for one step; see :meth:`gymnasium.Env.step`.

        Args:
            action: an integer in the action space.

        Returns:
            The observation, int8; the reward (points scored minus points conceded); terminated;
            truncated; the info dict with ``emulated_frames``.

        Raises:
            ValueError: ``action`` is not an integer in the action space.
            ResetNeeded: :meth:`reset` has not been called.
        """
        if isinstance(action, bool):
            raise self._refused(action)
        try:
            whole = index(action)
        except TypeError:
            raise self._refused(action) from None
        pixels, signs, reward, terminated, truncated = self.step_sparse(whole)
        observation = self._observation(pixels, signs)
        return observation, reward, terminated, truncated, self._info()

    def step_sparse(
        self, action: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float32], float, bool, bool]:
        """:meth:`step` for a policy that reads only the changed pixels.

        Args:
            action: index of the action.

        Returns:
            ``pixels``: indices into the flattened observation, ascending, intp (n,).
            ``signs``: the observation at these pixels, float32 (n,), each -1 or 1; all others are
            0. Then reward, terminated, truncated.

        Raises:
            ValueError: ``action`` is not in the action space.
            ResetNeeded: :meth:`reset` has not been called.
        """
        reward = self.emulate(action, self.frame_skip)
        pixels, signs, terminated, truncated = self.observe()
        return pixels, signs, reward, terminated, truncated

    def emulate(self, action: int, frames: int) -> float:
        """The first half of :meth:`step_sparse`: emulate ``frames`` frames.

        Each frame applies ``action``, unless it repeats the last applied action.

        Args:
            action: index of the action.
            frames: frames to emulate.

        Returns:
            Points scored minus points conceded.

        Raises:
            ValueError: ``action`` is not in the action space.
            ResetNeeded: :meth:`reset` has not been called.
        """
        begin = time.perf_counter()
        try:
            applied, chosen, act = self._applied, self._actions[action], self._ale.act
        except KeyError:
            raise self._refused(action) from None
        points = 0
        for repeated in islice(self._repeats, frames):
            if not repeated:
                applied = chosen
            points += act(applied)
        self._applied = applied
        self._at_start = False
        self.emulator_seconds += time.perf_counter() - begin
        return float(points)

    def observe(self) -> tuple[NDArray[np.intp], NDArray[np.float32], bool, bool]:
        """The second half of :meth:`step_sparse`: ``pixels``, ``signs``, terminated, truncated."""
        terminated, truncated = self.look()
        previous = self._newest
        newest = self._newest = 1 - previous
        self._frames[newest] = self._visible
        np.not_equal(self._flat_0, self._flat_1, out=self._changed)
        # This is cheap because only changed pixels are looked up: about 30 of 6400.
        pixels = self._changed.nonzero()[0]
        foreground = _FOREGROUND.take(self._flat.take(pixels, axis=1))
        signs = foreground[newest] - foreground[previous]
        if np.count_nonzero(signs) < len(signs):  # some change colour only
            pixels, signs = pixels[signs != 0.0], signs[signs != 0.0]
        return pixels, signs, terminated, truncated

    def first_frame(self) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The first frame of every episode: pixels that are not 0, ascending, and their values."""
        values = _FOREGROUND.take(self._start_frame.reshape(-1))
        pixels = values.nonzero()[0]
        return pixels, values[pixels]

    def look(self) -> tuple[bool, bool]:
        """Fetch the emulator's screen; return terminated and truncated."""
        # Palette bytes, as the emulator has them: grey values would be a look-up for each of 33600
        # pixels, and only those that changed need to be told from the background.
        self._ale.getScreen(self._screen)
        return self._ale.game_over(with_truncation=False), self._ale.game_truncated()

    def raw_screen(self) -> RawScreen:
        """The screen for compiled code, at the start of an episode.

        Until the next :meth:`reset`, call :meth:`emulate` and :meth:`look`, not :meth:`observe`.
        """
        top, _, left, right = self._crop
        rows, columns = self._start_frame.shape
        before, seen = np.zeros((rows, SCREEN_WIDTH), np.uint8), np.zeros(SCREEN_WIDTH, np.uint8)
        before[:, left:right:2] = self._start_frame
        seen[left:right:2] = 255
        return RawScreen(
            screen=self._screen.view(np.uint64),
            before=before.view(np.uint64),
            seen=seen.view(np.uint64),
            foreground=_FOREGROUND,
            crop=np.array([top, left, columns], np.intp),
        )

    def render(self) -> NDArray[np.uint8] | None:
        """The screen as RGB, uint8 (210, 160, 3); None unless the mode is ``"rgb_array"``."""
        if self.render_mode != "rgb_array":
            return None
        # restoreState does not redraw the emulator's screen.
        return self._start_rgb.copy() if self._at_start else self._ale.getScreenRGB()

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Raise TypeError: an emulator cannot be copied or pickled."""
        raise TypeError(
            "a PongEnv cannot be copied or pickled, as the emulator in it cannot; make another one "
            "with the same settings, reset it with the same seed, and repeat the actions"
        )

    @property
    def emulated_frames(self) -> int:
        """Frames emulated since the start of the episode."""
        return self._ale.getEpisodeFrameNumber()

    def _sticky_draws(self) -> Iterator[bool]:
        """Yield for each emulated frame whether it repeats the last applied action."""
        while True:
            yield from (self.np_random.random(1024) < self.repeat_action_probability).tolist()

    def _observation(
        self, pixels: NDArray[np.intp], signs: NDArray[np.float32]
    ) -> NDArray[np.int8]:
        """The observation in which these pixels of the difference frame have these values."""
        observation = np.zeros(self.observation_space.shape or (), np.int8)
        observation.reshape(-1)[pixels] = signs
        if self._sees_frame:
            observation[1] = _FOREGROUND.take(self._frames[self._newest])
        return observation

    def _refused(self, action: object) -> Exception:
        """The error for an action that cannot be applied."""
        if not self._actions:
            return ResetNeeded("step: call reset() before the first step")
        most = len(self._actions) - 1
        return ValueError(f"action: {action!r} is not a whole number from 0 to {most}")

    def _info(self) -> dict[str, Any]:
        return {"emulated_frames": self.emulated_frames}


def load_pong(frame_limit: int, *, display: bool) -> ALEInterface:
    """Load Pong into a deterministic emulator that runs one frame per action.

    Args:
        frame_limit: emulated frames after which an episode is truncated.
        display: open ALE's window and play sound.

    Raises:
        RomNotFoundError: ale-py has no Pong ROM.
    """
    ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ALEInterface()
    ale.setInt("random_seed", 0)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("frame_skip", 1)
    ale.setInt("max_num_frames_per_episode", frame_limit)
    ale.setBool("display_screen", display)
    ale.setBool("sound", display)
    ale.loadROM(_pong_rom())
    return ale


def _pong_rom() -> str:
    try:
        path = roms.get_rom_path("pong")
    except OSError as error:  # the folder or the file is missing, or the file is another ROM
        advice = "reinstall ale-py, unset ALE_ROMS_DIR"
        raise RomNotFoundError(f"Pong ROM: {one_line(error)}; {advice}") from None
    if path is None:
        raise RomNotFoundError("Pong ROM: this ale-py does not support pong; reinstall ale-py")
    return str(path)
