"""The report page, in a real browser."""

import base64
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import assert_can_be_read, assert_loads_nothing, chrome_at, show
from records import record_of
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.analysis.learning_curves import Curve
from distributed_pg.analysis.report.html_chart import MOST_POINTS, chart
from distributed_pg.analysis.report.run_page import _learning_charts, train_command
from distributed_pg.analysis.report.shared import duration, settings
from distributed_pg.cli.main import main, parse_command
from distributed_pg.config import TrainConfig
from distributed_pg.presets import preset
from distributed_pg.runtime.sizing import shaped_config
from distributed_pg.storage.run_dir import RunDir

NAME = "<script>alert(1)<b>&amp;"
ADDRESS = "<img src=x onerror=alert(1)>:80"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that passed three milestones, in a folder and with a setting that look like HTML."""
    config = TrainConfig(
        batch_size=4,
        hidden_units=8,
        frame_limit=400,
        address=ADDRESS,
        run_dir=tmp_path_factory.mktemp("report") / NAME,
    )
    run_dir = RunDir.create(config)
    for update in range(1, 31):
        mean = -21.0 + update
        run_dir.append(
            record_of(
                update,
                episodes=4 * update,
                frames=5000 * update,
                wall_seconds=60.0 * update,
                rewards=[mean - 2, mean, mean, mean + 2],
                running_mean=mean,
                mean_100=mean,
                best_reward=mean + 2,
                episodes_per_hour=240.0,
                frames_per_second=5000 / 60,
                worker_busy=0.9,
                weights_checksum="<i>",
            )
        )
    state = TrainingState.initial(config)
    state.policies = dict.fromkeys((29, 30), state.policy)
    state.progress = Progress(update=30, episodes=120, last_rewards=(9.0,) * 100)
    run_dir.save(config, state, best=False)
    return run_dir.path


@pytest.fixture(scope="module")
def page(run: Path, local_ray: None) -> Path:
    out = run.parent / "report.html"
    assert main(["report", str(run), "--episodes", "3", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[webdriver.Chrome]:
    with chrome_at(page) as chrome:
        yield chrome


def test_the_game_plays_and_nothing_is_loaded_from_elsewhere(browser: webdriver.Chrome) -> None:
    def position(driver: webdriver.Chrome) -> float:
        return float(driver.execute_script("return document.querySelector('video').currentTime"))

    WebDriverWait(browser, 60).until(lambda driver: position(driver) > 0.3)
    video = browser.find_element(By.TAG_NAME, "video")
    state = "const v = arguments[0]; return [v.error, v.muted, v.loop, v.controls, v.videoWidth]"
    error, muted, loop, controls, width = browser.execute_script(state, video)
    assert error is None
    assert (muted, loop, controls) == (True, True, True)
    assert width > 0
    assert_loads_nothing(browser)


@pytest.mark.parametrize("width", [320, 400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(browser: webdriver.Chrome, width: int, scheme: str) -> None:
    show(browser, width, scheme)
    assert_can_be_read(browser, width, scheme)
    dark = scheme == "dark"
    shown = "return document.querySelector('.weights img').currentSrc"
    picture = base64.b64decode(browser.execute_script(shown).partition(",")[2])
    source = browser.find_element(By.CSS_SELECTOR, ".weights source").get_attribute("srcset")
    assert (picture == base64.b64decode(str(source).partition(",")[2])) == dark


def test_columns_stand_side_by_side_where_there_is_room(browser: webdriver.Chrome) -> None:
    def tops(selector: str) -> list[int]:
        found = browser.find_elements(By.CSS_SELECTOR, selector)
        return [element.location["y"] for element in found]

    show(browser, 1400, "light")
    assert len(tops(".two .plot")) == 2
    assert len(set(tops(".two .plot"))) == 1
    assert len(set(tops(".three .plot"))) == 1
    show(browser, 400, "light")
    assert len(set(tops(".two .plot"))) == 2
    assert len(set(tops(".three .plot"))) == 3


def test_text_from_the_run_is_text(browser: webdriver.Chrome) -> None:
    assert browser.find_element(By.TAG_NAME, "h1").text == NAME
    assert browser.title == f"{NAME}: a Pong training run"
    cells = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, ".settings td")]
    assert ADDRESS in cells
    assert browser.find_elements(By.CSS_SELECTOR, "script, i, img[onerror]") == []


def test_the_page_tells_what_the_run_was(browser: webdriver.Chrome) -> None:
    show(browser, 1400, "light")
    names = [element.text for element in browser.find_elements(By.CSS_SELECTOR, ".figures dt")]
    values = [element.text for element in browser.find_elements(By.CSS_SELECTOR, ".value")]
    figures = dict(zip(names, values, strict=True))
    del figures["Games won"]  # of the three games played
    assert figures == {
        "Mean reward": "-3.0",  # of the last 25 updates, from -15 to 9
        "Episodes": "120",
        "Training time": "30 min",
        "Frames a second": "83",
    }
    milestones, evaluation = browser.find_elements(By.CSS_SELECTOR, ".halves tbody")
    rows = [row.text.split() for row in milestones.find_elements(By.TAG_NAME, "tr")]
    assert rows == [
        ["-15", "24", "6.0", "0.0"],
        ["-10", "44", "11.0", "0.1"],
        ["0", "84", "21.0", "0.1"],
        ["+5", "104", "26.0", "0.1"],
    ]
    assert "3 games after 120 episodes" in browser.find_element(By.TAG_NAME, "main").text
    assert len(evaluation.find_elements(By.TAG_NAME, "tr")) == 6
    marks = [element.text for element in browser.find_elements(By.CSS_SELECTOR, ".mark")]
    assert marks == ["24", "44", "84", "104", "6.0", "11.0", "21.0", "26.0"]


def test_what_was_not_asked_for_is_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run.parent / "bare.html"
    assert main(["report", str(run), "--episodes", "0", "--no-video", "--out", str(out)]) == 0
    assert capsys.readouterr().err == ""  # it tells of games played and recorded
    text = out.read_text()
    assert "of the last 100 games of training" in text
    assert " --stop-episodes 120</code>" in text  # where the checksum below is reached
    assert "<video" not in text
    assert "Evaluation" not in text


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["nowhere"], 2, "nowhere holds no run"),
        (["RUN", "--out", "page.txt"], 2, "--out: page.txt does not end in .html"),
        (["RUN", "--out", "none/page.html"], 2, "--out: there is no folder none"),
        (["RUN", "--episodes", "-1"], 2, "--episodes: -1 is not a whole number from 0"),
    ],
)
def test_wrong_usage_is_one_line(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *(str(run) if a == "RUN" else a for a in arguments)]) == code
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert complaint in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (TrainConfig(), "distributed-pg train --shape-for 2"),
        (
            preset("default", shape_for=16, hidden_units=9),
            "distributed-pg train --shape-for 16 --hidden-units 9",
        ),
        (
            preset("karpathy", seed=3, stop_minutes=0.5, tensorboard=True),
            "distributed-pg train --preset karpathy --seed 3 --stop-minutes 0.5 --tensorboard",
        ),
        (
            TrainConfig(actions=("NOOP", "UP", "DOWN"), crop=(30, 200, 10, 160), address="a b:1"),
            "distributed-pg train --shape-for 2 --actions NOOP UP DOWN --crop 30 200 10 160 "
            "--address 'a b:1'",
        ),
        (
            TrainConfig(learning_rate=1 / 3, anneal_episodes=None),
            "distributed-pg train --shape-for 2 --learning-rate 0.3333333333333333 "
            "--anneal-episodes None",
        ),
    ],
)
def test_the_command_makes_the_same_run(config: TrainConfig, command: str) -> None:
    assert train_command(config) == command
    args = parse_command(shlex.split(command)[1:])
    assert shaped_config(args.config, args.pinned).changed_settings(config) == []


def test_only_what_was_given_is_marked_as_changed() -> None:
    config = preset("default", shape_for=64, hidden_units=9, keep=5)
    assert config.batch_size != TrainConfig().batch_size  # the shape's
    every = [setting for free in (False, True) for setting in settings(config, may_change=free)]
    assert [setting.name for setting in every if setting.changed] == ["hidden_units", "keep"]


def test_a_chart_is_a_path_and_its_labels_in_per_cent() -> None:
    x, y = np.array([1.0, 2.0, 4.0]), np.array([-21.0, 0.0, 10.5])
    made = chart("t", "episodes", x, y, dots=y, y_range=(-21, 21), marks=(("even", 2.0, 0.0),))
    assert made.line == "M250 1000L500 500L1000 250"
    assert made.dots == "M250 1000h0M500 500h0M1000 250h0"
    assert [(mark.text, mark.left, mark.top) for mark in made.marks] == [("even", 50.0, 50.0)]
    assert [(tick.text, tick.left) for tick in made.x_ticks][-1] == ("4", 100.0)
    assert {tick.text: tick.top for tick in made.y_ticks}["0"] == 50.0
    assert made.summary == "t over episodes: -21 at first, 10.5 after 4 episodes"


@pytest.mark.parametrize(
    ("means", "tops"),
    [
        ([-15.0, -10.0], [-15.0, -10.0]),
        ([-3.0, -2.0, 1.0], [-3.0, 1.0]),  # it began above the first two levels
        ([30.0], [21.0]),  # above the chart, which cuts the line off there
        ([-21.0, 12.0], [12.0]),  # over four levels at once
        ([-21.0, -20.0], []),
        ([-9.0, -20.0, -9.5, 0.5], [-9.0, 0.5]),
    ],
)
def test_the_rings_of_milestones_are_on_the_line(means: list[float], tops: list[float]) -> None:
    x, y = np.arange(1.0, len(means) + 1), np.array(means)
    for made in _learning_charts(Curve("run", None, [], x, x / 40, x * 1000, y, y)):
        points = re.findall(r"(\d+) (\d+)", made.line)
        rings = [(f"{round(10 * ring.left)}", f"{round(10 * ring.top)}") for ring in made.marks]
        assert set(rings) <= set(points)
        assert len(set(rings)) == len(rings)
        expected = [(21 - top) / 42 * 100 for top in tops]
        assert [ring.top for ring in made.marks] == pytest.approx(expected, abs=0.01)


def test_a_long_run_is_thinned_but_keeps_its_end() -> None:
    x = np.arange(1.0, 10 * MOST_POINTS + 4)
    made = chart("t", "episodes", x, x)
    assert MOST_POINTS / 2 < made.line.count("L") + 1 <= MOST_POINTS
    assert made.line.endswith("L1000 74")  # the range ends a little above the highest
    assert [tick.text for tick in made.x_ticks] == ["0", "2,000", "4,000", "6,000", "8,000"]
    assert [tick.text for tick in chart("t", "x", 10 * x, x).x_ticks][-1] == "80k"


def test_durations() -> None:
    assert [duration(minutes) for minutes in (6.99, 41.02, 150.0)] == ["7.0 min", "41 min", "2.5 h"]
