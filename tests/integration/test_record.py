"""Videos, as ffmpeg and pillow read them, of the game that evaluate plays."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from command import COMMAND
from numpy.typing import NDArray
from PIL import Image
from trajectories import frames_of
from watching import untrained_checkpoint

from distributed_pg.algo.rollout import EVALUATION, episode_seed, play_episode
from distributed_pg.envs.pong import PongEnv
from distributed_pg.episode import evaluate_episode
from distributed_pg.errors import RunError, UsageError
from distributed_pg.viewer import frame_renderer
from distributed_pg.viewer.frame_renderer import picture, picture_size, probability_of_up
from distributed_pg.viewer.playback import GameFrame, Playback
from distributed_pg.viewer.video import record

FRAMES = 202  # the last step has two
STEPS = 51


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_checkpoint(tmp_path_factory.mktemp("record") / "x.safetensors", FRAMES)


@pytest.fixture(scope="module")
def game(checkpoint: Path) -> Playback:
    return Playback.load(checkpoint)


def mp4(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """What ffmpeg says of a video, and its pictures."""
    reader = imageio_ffmpeg.read_frames(path)
    return next(reader), list(reader)


def gif_delays(path: Path) -> list[int]:
    """Milliseconds that each picture stays."""
    delays = []
    with Image.open(path) as gif:
        assert gif.size == picture_size(overlay=False) or gif.size == picture_size(overlay=True)
        for number in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(number)
            delays.append(gif.info["duration"])
    return delays


def command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "record", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("greedy", [False, True])
def test_the_game_watched_is_the_one_that_is_evaluated(greedy: bool, tmp_path: Path) -> None:
    game = Playback.load(untrained_checkpoint(tmp_path / "x.safetensors", frame_limit=108_000))
    moments = list(game.watch(5, 1, greedy=greedy))
    stats = evaluate_episode(PongEnv(), game.policy, 5, 1, greedy=greedy)
    assert (moments[-1].reward, moments[-1].step) == (stats.reward, stats.steps)
    assert [moment.frame for moment in moments] == list(range(1, stats.frames + 1))
    assert max(moments[-1].points) == 21
    assert [moment.over for moment in moments] == [False] * (stats.frames - 1) + [True]


def test_a_moment_has_the_screen_and_what_the_policy_made_of_it(game: Playback) -> None:
    trajectory = play_episode(game.env, game.policy, episode_seed(3, 0, EVALUATION))
    screens = []
    env = PongEnv(render_mode="rgb_array")
    env.reset(seed=int(episode_seed(3, 0, EVALUATION).spawn(2)[0].generate_state(1, np.uint64)[0]))
    for action in trajectory.actions:
        env.step(action)
        screens.append(env.render())
    frames = list(frames_of(trajectory))
    moments = list(game.watch(3, 0))
    assert len(moments) == FRAMES
    for step in range(STEPS - 2):
        moment = moments[4 * step + 3]
        assert moment.step == step + 1
        assert np.array_equal(moment.screen, screens[step])  # type: ignore[arg-type]
        seen = moment.seen.reshape(-1)
        pixels, signs = frames[step + 1]
        assert np.array_equal(seen.nonzero()[0], pixels)
        assert np.array_equal(seen[pixels], signs)
        assert moment.probabilities == pytest.approx(trajectory.probabilities[step + 1])


def test_an_mp4_that_browsers_play_at_the_speed_of_the_game(
    checkpoint: Path, game: Playback, tmp_path: Path
) -> None:
    seen: list[int] = []
    recording = record(checkpoint, tmp_path / "game.mp4", seed=3, progress=seen.append)
    stats = evaluate_episode(game.env, game.policy, 3, 0, greedy=False)
    assert (recording.reward, recording.steps) == (stats.reward, stats.steps)
    assert recording.seconds == pytest.approx(STEPS * 4 / 60)
    assert seen == list(range(1, STEPS + 1))
    facts, pictures = mp4(recording.path)
    assert facts["codec"] == "h264"
    assert facts["pix_fmt"].startswith("yuv420p")
    assert facts["fps"] == 15.0
    assert facts["size"] == (480, 456)
    assert facts["duration"] == pytest.approx(STEPS * 4 / 60, abs=0.01)
    assert len(pictures) == STEPS
    moments = list(game.watch(3, 0))
    for step in (1, 30, STEPS - 1):
        shown = np.frombuffer(pictures[step - 1], np.uint8).reshape(456, 480, 3).astype(int)
        drawn = np.asarray(picture(moments[4 * step - 1], game.config.actions)).astype(int)
        assert np.abs(shown - drawn).mean() < 2  # the codec's loss
        other = np.asarray(picture(moments[4 * step - 41], game.config.actions)) if step > 20 else 0
        assert np.abs(shown - other).mean() > np.abs(shown - drawn).mean()
    assert b"moov" in recording.path.read_bytes()[:5000]  # so that it plays while it is loaded


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe")
@pytest.mark.parametrize(("smooth", "rate", "pictures"), [(False, 15, STEPS), (True, 60, FRAMES)])
def test_ffprobe_agrees(
    checkpoint: Path, tmp_path: Path, smooth: bool, rate: int, pictures: int
) -> None:
    recording = record(checkpoint, tmp_path / "game.mp4", smooth=smooth)
    entries = "stream=codec_name,pix_fmt,width,height,avg_frame_rate,nb_read_frames:format=duration"
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", entries, "-of", "json"]
    said = json.loads(subprocess.run([*command, recording.path], capture_output=True).stdout)
    assert said["streams"] == [
        {
            "codec_name": "h264",
            "width": 480,
            "height": 456,
            "pix_fmt": "yuv420p",
            "avg_frame_rate": f"{rate}/1",
            "nb_read_frames": str(pictures),
        }
    ]
    assert float(said["format"]["duration"]) == pytest.approx(pictures / rate, abs=0.01)


def test_smooth_shows_every_emulated_frame(checkpoint: Path, tmp_path: Path) -> None:
    recording = record(checkpoint, tmp_path / "game.mp4", smooth=True, overlay=True)
    facts, pictures = mp4(recording.path)
    assert facts["fps"] == 60.0
    assert facts["size"] == picture_size(overlay=True)
    assert len(pictures) == FRAMES
    assert recording.seconds == FRAMES / 60


@pytest.mark.parametrize(
    ("overlay", "smooth", "delays"),
    [(False, False, {60, 70}), (True, False, {130, 140}), (True, True, {30, 40})],
)
def test_gif_delays(
    checkpoint: Path, tmp_path: Path, overlay: bool, smooth: bool, delays: set[int]
) -> None:
    recording = record(checkpoint, tmp_path / "game.gif", overlay=overlay, smooth=smooth)
    measured = gif_delays(recording.path)
    assert set(measured) == delays
    assert sum(measured) == pytest.approx(1000 * recording.seconds, abs=10)
    assert recording.seconds == pytest.approx(FRAMES / 60, abs=0.14)
    assert recording.path.stat().st_size < 2000 * len(measured)


def test_a_gif_has_the_colours_of_the_game(
    checkpoint: Path, game: Playback, tmp_path: Path
) -> None:
    recording = record(checkpoint, tmp_path / "game.gif", max_seconds=0.5)
    with Image.open(recording.path) as gif:
        gif.seek(4)
        shown = np.asarray(gif.convert("RGB"))
    moment = list(game.watch(0, 0))[4 * 5 - 1]
    assert np.array_equal(shown[36::2, ::3], moment.screen)


def test_max_seconds_cuts_the_video_but_not_the_game(checkpoint: Path, tmp_path: Path) -> None:
    recording = record(checkpoint, tmp_path / "game.mp4", max_seconds=2)
    assert recording.seconds == 2.0
    assert recording.steps == STEPS
    assert len(mp4(recording.path)[1]) == 30
    recording = record(checkpoint, tmp_path / "game.mp4", max_seconds=0.001)
    assert len(mp4(recording.path)[1]) == 1


def test_best_of_records_the_game_with_the_highest_reward(tmp_path: Path) -> None:
    longer = untrained_checkpoint(tmp_path / "x.safetensors", 402)  # there are points
    game = Playback.load(longer)
    rewards = [evaluate_episode(game.env, game.policy, 3, i, greedy=False).reward for i in range(3)]
    assert max(rewards) > max(rewards[0], rewards[-1])  # or it would show nothing
    played: list[int] = []
    out = tmp_path / "game.mp4"
    recording = record(longer, out, seed=3, best_of=3, max_seconds=0.1, played=played.append)
    assert recording.episode == rewards.index(max(rewards))
    assert recording.reward == max(rewards)
    assert played == [1, 2, 3]


def test_a_picture_shows_points_and_probabilities_and_the_difference_frame() -> None:
    screen = np.arange(210 * 160 * 3, dtype=np.uint32).astype(np.uint8).reshape(210, 160, 3)
    seen = np.zeros((80, 80), np.int8)
    seen[10, 20], seen[79, 79] = 1, -1
    probabilities = [0.25, 0.5, 0.25]

    def drawn(points: tuple[int, int], overlay: bool) -> NDArray[np.uint8]:
        moment = GameFrame(screen, seen, probabilities, points, frame=8, step=2, over=False)
        assert probability_of_up(moment, ("UP", "DOWN", "UPFIRE")) == 0.5
        return np.asarray(picture(moment, ("UP", "DOWN", "UPFIRE"), overlay=overlay))

    plain, over = drawn((3, 5), overlay=False), drawn((3, 5), overlay=True)
    width, height = picture_size(overlay=True)
    assert plain.shape == (456, 480, 3)
    assert over.shape == (height, width, 3)
    assert width % 2 == height % 2 == 0
    assert np.array_equal(plain[36:], screen.repeat(2, axis=0).repeat(3, axis=1))
    assert np.array_equal(over[36:, :480], plain[36:])
    panel = over[36:196, 496:736]
    assert (panel[20:22, 60:63] == frame_renderer.APPEARED).all()
    assert (panel[158:, 237:] == frame_renderer.VANISHED).all()
    assert not panel[:20].any()
    changed = drawn((4, 5), overlay=False) != plain
    assert changed[:36, :120].any()  # the left side's points, and nothing else
    assert not changed[:, 120:].any()


def test_the_command_writes_a_video_and_says_which_game_it_is(
    checkpoint: Path, game: Playback, tmp_path: Path
) -> None:
    result = command(checkpoint, "--out", "game.GIF", "--greedy", "--seed", "4", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no progress where there is no terminal
    stats = evaluate_episode(game.env, game.policy, 4, 0, greedy=True)
    expected = f"game 0 of seed 4, reward {stats.reward:+.0f} in 51 steps, 3.4 seconds"
    assert result.stdout == f"Wrote game.GIF: {expected}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["game.GIF"]
    assert len(gif_delays(tmp_path / "game.GIF")) == STEPS


@pytest.mark.parametrize("name", ["game.mp4", "game.gif"])
def test_a_video_that_cannot_be_written_leaves_the_old_one(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"the old one")
    limited = (
        f"ulimit -f 8; exec {sys.executable} -m distributed_pg record {checkpoint} --out {name}"
    )
    result = subprocess.run(
        ["/bin/sh", "-c", limited],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert re.fullmatch(rf"distributed-pg: error: --out: .*{name}.*\n", result.stderr), (
        result.stderr
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"the old one"


def test_an_error_while_playing_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(checkpoint, tmp_path / "game.mp4", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_video(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "game.mp4").mkdir()
    with pytest.raises(RunError, match=r"out: .*game.mp4 cannot be written \(Is a directory\)"):
        record(checkpoint, tmp_path / "game.mp4", max_seconds=0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["game.mp4"]


def test_a_file_as_folder(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="out: there is no folder"):
        record(checkpoint, checkpoint / "game.mp4")
