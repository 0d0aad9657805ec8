"""The window under a real X server, driven by real keys; and the left paddle in other hands."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from command import COMMAND
from PIL import Image, ImageGrab
from watching import untrained_checkpoint

from distributed_pg.viewer.frame_renderer import ORANGE
from distributed_pg.viewer.playback import Playback

SECONDS = 60
"""Until a test gives up waiting for something that takes one or two."""

XVFB, XDOTOOL = shutil.which("Xvfb") or "", shutil.which("xdotool") or ""
needs_x = pytest.mark.skipif(not (XVFB and XDOTOOL), reason="needs Xvfb and xdotool")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_checkpoint(tmp_path_factory.mktemp("play") / "x.safetensors", 60_000)


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """An X server with room for the window at its smallest only."""
    read, write = os.pipe()
    screen = ["-screen", "0", "800x600x24", "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen([XVFB, "-displayfd", str(write), *screen], pass_fds=[write])
    os.close(write)
    with os.fdopen(read) as answer:
        number = answer.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait()


def command(*arguments: str | Path) -> list[str]:
    return [*COMMAND, "play", *map(str, arguments)]


class Player:
    """The command ``play`` on a display, and someone at the keyboard."""

    def __init__(self, display: str, *arguments: str | Path) -> None:
        self.display = display
        self.environment = os.environ | {"DISPLAY": display}
        self.process = subprocess.Popen(
            command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Player":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def xdotool(self, *arguments: str) -> str:
        # A window may go while it is asked for.
        return subprocess.run(
            [XDOTOOL, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        ).stdout

    def key(self, key: str) -> None:
        """Press a key, with the focus on the window, as a window manager would have it."""
        self.xdotool("search", "--class", "^distributed-pg$", "windowfocus")
        # Not sent to the window: if that closes at once, xdotool fails before it lets go of the
        # key, and the next window hears it held down.
        self.xdotool("key", key)

    @property
    def title(self) -> str:
        return self.xdotool("search", "--class", "^distributed-pg$", "getwindowname").strip()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"{what}: {self.title!r}"
            time.sleep(0.02)

    def wait_title(self, pattern: str) -> None:
        self.wait(lambda: re.search(pattern, self.title), pattern)

    def press(self, key: str, pattern: str) -> None:
        """Press a key and wait for the title to say ``pattern``."""
        self.key(key)
        self.wait_title(pattern)

    def picture(self) -> Image.Image:
        return ImageGrab.grab(xdisplay=self.display)

    def paddle(self) -> float:
        """Middle of the left paddle, as a row of the screen; NaN if it is not there."""
        rows, columns = (np.asarray(self.picture()) == ORANGE).all(axis=2).nonzero()
        # The window, 480x456, is in the middle. Beside the paddle there are points in its colour.
        rows, columns = (rows - (600 - 456) // 2 - 36) // 2, (columns - (800 - 480) // 2) // 3
        inside = (rows >= 34) & (rows < 194) & (columns >= 16) & (columns < 20)
        return float(rows[inside].mean()) if inside.any() else float("nan")

    def end(self) -> tuple[int, str, str]:
        """Wait for the command to end: its exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err


@needs_x
def test_keys_pause_change_the_speed_show_the_overlay_and_quit(
    display: str, checkpoint: Path
) -> None:
    with Player(display, checkpoint) as player:
        player.wait_title("^distributed-pg: opponent 0, agent 0, speed 1, playing$")
        player.press("Right", "speed 2, playing$")
        player.press("Up", "speed 4, playing$")
        player.press("space", "speed 4, paused$")
        still = player.picture()
        player.press("Left", "speed 2, paused$")
        player.press("Down", "speed 1, paused$")
        player.press("Left", "speed 0.5, paused$")
        assert player.picture() == still
        player.key("o")
        player.wait(lambda: player.picture() != still, "the overlay")
        player.key("o")
        player.wait(lambda: player.picture() == still, "the picture without the overlay")
        player.press("space", "speed 0.5, playing$")
        player.wait(lambda: player.picture() != still, "that it goes on")
        player.key("q")
        code, out, err = player.end()
    assert (code, out) == (0, "")
    assert err.startswith("Keys: arrows speed, space pause")
    assert err.count("\n") == 1


@needs_x
def test_a_second_of_the_game_takes_a_second_and_space_begins_another(
    display: str, tmp_path: Path
) -> None:
    short = untrained_checkpoint(tmp_path / "short.safetensors", frame_limit=180)
    with Player(display, short, "--overlay") as player:
        player.wait_title("playing$")
        begin = time.monotonic()
        player.wait_title("agent 0, speed 1, game over$")
        assert time.monotonic() - begin > 2.4  # of 3, less what passed before the title was seen
        player.press("space", "opponent 0, agent 0, speed 1, playing$")
        player.key("Escape")
        assert player.end()[0] == 0


@needs_x
def test_a_user_plays_the_left_paddle(display: str, checkpoint: Path) -> None:
    with Player(display, checkpoint, "--human", "left") as player:
        player.wait_title("^distributed-pg: you 0, agent 0, speed 1, playing$")
        for up, down in (("Up", "Down"), ("w", "s")):
            player.xdotool("keydown", up)
            player.wait(lambda: player.paddle() < 45, f"the paddle to obey {up}")
            player.xdotool("keyup", up, "keydown", down)
            player.wait(lambda: player.paddle() > 180, f"the paddle to obey {down}")
            player.xdotool("keyup", down)
        player.press("Right", "speed 2, playing$")


def test_the_close_button_closes_it(checkpoint: Path) -> None:
    """Without a window manager there is none to press, so its event comes from within."""
    code = (
        "import sys; from distributed_pg.viewer.window import play, pygame;"
        "quit = pygame.event.Event(pygame.QUIT);"
        "play(sys.argv[1], opened=lambda: print(pygame.event.post(quit)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(checkpoint)],
        env=os.environ | {"SDL_VIDEODRIVER": "dummy"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr


@pytest.mark.parametrize(("follow", "points"), [(True, (21, 0)), (False, (0, 21))])
def test_the_left_paddle_goes_where_it_is_told_and_points_count(
    checkpoint: Path, follow: bool, points: tuple[int, int]
) -> None:
    """Another player than the game's own wins every point if it wants to, or loses every one."""
    game = Playback.load(checkpoint)
    ball, wanted, missed = 0, 0, 0

    def paddle() -> int:
        return int(game.env._ale.getRAM()[21])

    def move() -> None:
        nonlocal wanted
        away = 60 if ball > 114 else 200
        goal = (ball + 9 if follow else away) // 2 * 2 if ball else paddle()
        rows = min(max(goal - paddle(), -4), 4)
        wanted = min(max(paddle() + rows, 50), 206)
        game.env.move_left(rows)

    for moment in game.watch(0, 0, before_frame=move):
        missed += paddle() != wanted
        assert paddle() in (wanted, 128, 130)  # a serve puts it to the middle
        shown = (moment.screen[34:194, 16:20] == ORANGE).all(axis=(1, 2)).nonzero()[0] + 34
        assert len(shown) < 16 or shown[-1] == paddle()
        balls = (moment.screen[34:194, :, 1] == 236).any(axis=1).nonzero()[0]  # it alone is white
        ball = int(balls[0]) + 34 if len(balls) else 0
    assert moment.over
    assert moment.points == points
    assert missed <= 21  # one frame of each serve


def test_without_a_display_it_is_one_line(checkpoint: Path) -> None:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    result = subprocess.run(
        command(checkpoint), env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stdout == ""
    line = "distributed-pg: error: there is no display to open a window on; the command record"
    assert re.fullmatch(rf"{line} .*\n", result.stderr)


def test_only_the_left_side_can_be_played() -> None:
    result = subprocess.run(
        command("x", "--human", "right"), capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert re.fullmatch(r"distributed-pg: error: .*--human.*\n", result.stderr)
