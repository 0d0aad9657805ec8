"""Records a game as an MP4 or GIF."""

import math
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, cast

import imageio_ffmpeg
from PIL import Image

from distributed_pg.envs.pong import FRAMES_PER_SECOND
from distributed_pg.episode import evaluate_episode
from distributed_pg.errors import ConfigError, RunError, UsageError, one_line, writing
from distributed_pg.viewer import frame_renderer
from distributed_pg.viewer.playback import Playback

SUFFIXES = (".mp4", ".gif")


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded game."""

    path: Path
    episode: int
    """Index among the seed's episodes."""
    reward: float
    """Points won minus points lost in the whole game."""
    steps: int
    """Steps in the whole game."""
    seconds: float
    """Length of the video."""


def record(
    checkpoint: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    greedy: bool = False,
    best_of: int = 1,
    smooth: bool = False,
    overlay: bool = False,
    max_seconds: float | None = None,
    played: Callable[[int], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> Recording:
    """Play a game with a checkpoint's newest weights and record it as a video.

    The games are the ones :func:`distributed_pg.evaluation.evaluate` plays with the same seed.

    Args:
        checkpoint: a file, or a run's folder or URI.
        out: the video file, ending in .mp4 or .gif; replaced only when the video is complete.
        seed: seed of the games and the sampling.
        greedy: take the most probable action instead of sampling.
        best_of: play this many games and record the first one with the highest reward.
        smooth: include all emulated frames, 60 a second, instead of one per step. A GIF includes
            every second frame, because browsers show at most 50 a second.
        overlay: add what the network sees. A GIF that is not smooth then shows every second step
            only, to keep a whole game below 5 MB.
        max_seconds: maximum length of the video; the game is still played to its end.
        played: called with the number of ``best_of`` games played so far.
        progress: called with the number of steps recorded so far.

    Returns:
        The video and the game it shows.

    Raises:
        UsageError: ``out`` is not a valid file name, or there is nothing at ``checkpoint``.
        RunError: the checkpoint cannot be read, or the video cannot be written.
    """
    out = _checked(Path(out))
    game = Playback.load(checkpoint)
    episode = _best_episode(game, seed, greedy, best_of, played) if best_of > 1 else 0
    gif = out.suffix.lower() == ".gif"
    stride = _stride(game.env.frame_skip, smooth=smooth, overlay=overlay, gif=gif)
    rate = Fraction(FRAMES_PER_SECOND, stride)
    limit = math.inf if max_seconds is None else max(1, max_seconds * rate)
    pictures = 0
    size = frame_renderer.picture_size(overlay=overlay)
    with _written(out) as file, _Encoder(file, size, rate, gif=gif) as video:
        for moment in game.watch(seed, episode, greedy=greedy):
            if (moment.frame % stride == 0 or moment.over) and pictures + 1 <= limit:
                video.add(frame_renderer.picture(moment, game.config.actions, overlay=overlay))
                pictures += 1
                progress(moment.step)
    return Recording(out, episode, float(moment.reward), moment.step, float(pictures / rate))


def _checked(out: Path) -> Path:
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"out: {out} ends in none of {', '.join(SUFFIXES)}")
    if not out.parent.is_dir():
        raise UsageError(f"out: there is no folder {out.parent}")
    return out


def _stride(frame_skip: int, *, smooth: bool, overlay: bool, gif: bool) -> int:
    """Emulated frames per picture."""
    if not gif:
        return 1 if smooth else frame_skip
    return 2 if smooth else max(2, frame_skip * (2 if overlay else 1))


def _best_episode(
    game: Playback, seed: int, greedy: bool, games: int, played: Callable[[int], None]
) -> int:
    rewards = []
    for episode in range(games):
        stats = evaluate_episode(game.env, game.policy, seed, episode, greedy=greedy)
        rewards.append(stats.reward)
        played(episode + 1)
    return rewards.index(max(rewards))


@contextmanager
def _written(out: Path) -> Iterator[Path]:
    """Yield a temporary file next to ``out``; rename it to ``out`` on success."""
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        with writing(f"out: {out}"):
            temporary.touch()
            yield temporary
            temporary.replace(out)
    finally:
        with suppress(OSError):  # on a read-only disk; its error is on its way already
            temporary.unlink(missing_ok=True)


class _Encoder:
    """An ffmpeg process that encodes pictures into the video ``file``.

    Raises:
        RunError: ffmpeg failed; raised on leaving the ``with`` block at the latest.
    """

    def __init__(self, file: Path, size: tuple[int, int], rate: Fraction, *, gif: bool) -> None:
        self._file = file
        self._folder = tempfile.TemporaryDirectory()
        palette = Path(self._folder.name) / "palette.png"
        frame_renderer.palette().save(palette)
        # No dithering: GIF compression relies on areas of one colour.
        as_gif = ("-i", palette, "-lavfi", "paletteuse=dither=none:diff_mode=rectangle")
        as_mp4 = ("-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart")
        self._process = subprocess.Popen(  # noqa: S603
            [
                *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"),
                *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}"),
                *("-framerate", f"{rate}", "-i", "-"),
                *((*as_gif, "-f", "gif") if gif else (*as_mp4, "-f", "mp4")),
                file,
            ],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> "_Encoder":
        return self

    def add(self, picture: Image.Image) -> None:
        """Append ``picture`` to the video."""
        try:
            cast(IO[bytes], self._process.stdin).write(picture.tobytes())
        except BrokenPipeError:
            self._end()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._folder, self._process:
            if kind is None:
                self._end()
            self._process.kill()

    def _end(self) -> None:
        """Wait for the process and check its exit code."""
        _, output = self._process.communicate()
        if self._process.returncode != 0:
            reason = one_line(output.decode(errors="replace")) or f"exit {self._process.returncode}"
            raise RunError(f"out: ffmpeg cannot write {self._file} ({reason})")
