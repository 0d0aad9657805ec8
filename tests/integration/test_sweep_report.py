"""The report page of a sweep, in a real browser."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import assert_can_be_read, assert_loads_nothing, chrome_at, show
from selenium import webdriver
from selenium.webdriver.common.by import By
from sweeps import FRAMES, make_run, make_sweep

from distributed_pg.analysis.learning_curves import Curve, Group
from distributed_pg.analysis.report.html_chart import MOST_POINTS, group_chart, overlaid
from distributed_pg.analysis.report.sweep_page import seeds_text, sweep_command
from distributed_pg.cli.main import main, parse_command
from distributed_pg.cli.sweep import _plan
from distributed_pg.config import TrainConfig
from distributed_pg.presets import preset
from distributed_pg.sweep.folder import Stopped
from distributed_pg.sweep.plan import SweepPlan

NAME = "<script>alert(1)<b>&amp;"
UPDATES = 30
BASE = TrainConfig(
    batch_size=4, hidden_units=8, frame_limit=400, stop_frames=UPDATES * 4 * FRAMES, max_workers=3
)


def learning(end: float, updates: int = UPDATES) -> list[float]:
    """Means that rise from -21 by equal steps."""
    return [float(mean) for mean in np.linspace(-21.0, end, updates)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings, three seeds each; one trial was stopped early, one is halfway, one waits."""
    path = tmp_path_factory.mktemp("report") / NAME
    folder = make_sweep(path, BASE, (0, 1, 2), gamma=(0.98, 1 / 3))
    good, bad = folder.trials[::2], folder.trials[1::2]
    for trial, end in zip(good, (10.0, 12.0, 17.0), strict=True):
        make_run(folder, trial, learning(end))
    make_run(folder, bad[0], learning(-20.0, 10))
    folder.stop(bad[0], Stopped(10 * 4 * FRAMES, -20.0))
    make_run(folder, bad[1], learning(-15.0, 15))
    return path


@pytest.fixture(scope="module")
def page(sweep: Path) -> Path:
    out = sweep.parent / "sweep.html"
    assert main(["report", str(sweep), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[webdriver.Chrome]:
    with chrome_at(page) as chrome:
        yield chrome


def rows(browser: webdriver.Chrome, selector: str) -> list[list[str]]:
    """The texts of a table's cells."""
    found = browser.find_elements(By.CSS_SELECTOR, f"{selector} tbody tr")
    return [[c.text for c in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in found]


def test_nothing_is_loaded_from_elsewhere(browser: webdriver.Chrome) -> None:
    assert_loads_nothing(browser)


@pytest.mark.parametrize("width", [320, 400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(browser: webdriver.Chrome, width: int, scheme: str) -> None:
    show(browser, width, scheme)
    assert_can_be_read(browser, width, scheme)


def test_text_from_the_sweep_is_text(browser: webdriver.Chrome) -> None:
    assert browser.find_element(By.TAG_NAME, "h1").text == NAME
    assert browser.title == f"{NAME}: a sweep of Pong training runs"
    assert browser.find_elements(By.CSS_SELECTOR, "script, i, b, img") == []


def test_the_page_tells_what_the_sweep_found(browser: webdriver.Chrome) -> None:
    show(browser, 1400, "light")
    lede = browser.find_element(By.CLASS_NAME, "lede").text
    assert lede == (
        "2 settings, 3 seeds each: 3 done, 2 unfinished, 1 stopped early. Preset default."
    )
    values = [element.text for element in browser.find_elements(By.CSS_SELECTOR, ".value")]
    # 30 updates of three trials, 10 and 15 of the others; 20,000 frames and 6 seconds each.
    assert values == ["+13.0", "3", "2", "2.3M", "12 min"]
    results = rows(browser, ".results")
    assert [row[:4] for row in results] == [
        ["gamma 0.98", "3", "0.6M", "+13.0"],
        [f"gamma {1 / 3}", "2", "0.2M", "-17.5"],
    ]
    trials = rows(browser, ".trials")
    good = [("0", "+10.0"), ("1", "+12.0"), ("2", "+17.0")]
    assert trials[::2] == [
        ["gamma 0.98", seed, "600,000", mean, "done", f"gamma_0.98-seed_{seed}: 30"]
        for seed, mean in good
    ]
    label = f"gamma {1 / 3}"
    name = label.replace(" ", "_")
    assert trials[1::2] == [
        [label, "0", "200,000", "-20.0", "stopped early", f"{name}-seed_0: 10"],
        [label, "1", "300,000", "-15.0", "unfinished", f"{name}-seed_1: 15"],
        [label, "2", "-", "-", "unfinished", "-"],
    ]


def test_each_setting_has_a_line_a_band_and_a_chart_of_its_own(browser: webdriver.Chrome) -> None:
    show(browser, 1400, "light")
    drawn = browser.find_elements(By.CSS_SELECTOR, ".main .area .mean")
    colours = {line.value_of_css_property("stroke") for line in drawn}
    assert len(drawn) == len(colours) == 2
    legend = browser.find_elements(By.CSS_SELECTOR, ".legend li")
    assert [one.text for one in legend] == ["gamma 0.98", f"gamma {1 / 3}"]
    key = legend[0].find_element(By.TAG_NAME, "path").value_of_css_property("stroke")
    assert key == drawn[0].value_of_css_property("stroke")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".main .band")) == 2
    single = browser.find_elements(By.CSS_SELECTOR, ".three .runs")
    assert [str(line.get_attribute("d")).count("M") for line in single] == [3, 2]


def test_the_settings_and_the_commands(browser: webdriver.Chrome, sweep: Path) -> None:
    show(browser, 1400, "light")
    varied, computing, running = (
        dict(
            row
            for row in (
                [c.text for c in r.find_elements(By.CSS_SELECTOR, "th, td")]
                for r in table.find_elements(By.TAG_NAME, "tr")
            )
        )
        for table in browser.find_elements(By.CSS_SELECTOR, ".settings")
    )
    assert varied == {"gamma": f"0.98, {1 / 3}", "seed": "0-2"}
    assert computing["frame_limit"] == "400"
    assert {"gamma", "seed", "preset"}.isdisjoint(computing)
    assert running["max_workers"] == "3"
    commands = [one.text for one in browser.find_elements(By.TAG_NAME, "pre")]
    assert shlex.split(commands[0]) == ["distributed-pg", "sweep", "--resume", str(sweep)]
    assert _plan(parse_command(shlex.split(commands[1])[1:])) == SweepPlan(
        BASE, (0, 1, 2), {"gamma": (0.98, 1 / 3)}
    )
    alone = parse_command(shlex.split(commands[2])[1:]).config
    assert alone.changed_settings(BASE) == ["gamma"]


def test_a_sweep_of_one_setting_has_one_chart_with_its_runs(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "one", BASE, (3, 5))
    for trial in folder.trials:
        make_run(folder, trial, learning(5.0 + trial.config.seed))
    out = tmp_path / "page.html"
    assert main(["report", str(folder.path), "--out", str(out), "--no-video"]) == 0
    text = out.read_text()
    assert text.count("<figure>") == 1
    assert "One setting, 2 seeds: 2 done." in text
    assert text.count('class="runs look0" d="M') == 1
    assert "Each setting" not in text
    assert "Extend it" in text


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["SWEEP", "--out", "none/page.html"], 2, "out: there is no folder none"),
        (["EMPTY"], 1, "no trial of this sweep has made an update yet"),
        (["DAMAGED"], 1, "sweep.json: cannot be used"),
    ],
)
def test_wrong_usage_is_one_line(
    sweep: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    complaint: str,
) -> None:
    places = {"SWEEP": sweep, "EMPTY": tmp_path / "empty", "DAMAGED": tmp_path / "damaged"}
    for name in ("EMPTY", "DAMAGED"):
        make_sweep(places[name], BASE, (0,))
    (places["DAMAGED"] / "sweep.json").write_text("{}")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert main(["report", *(str(places.get(a, a)) for a in arguments)]) == code
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert complaint in printed.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("plan", "command"),
    [
        (
            SweepPlan(TrainConfig(stop_frames=1000), (0, 1, 2, 7, 9, 10), {}),
            "distributed-pg sweep --seeds 0-2,7,9-10 --stop-frames 1000",
        ),
        (
            SweepPlan(
                preset("karpathy", stop_reward=0.5, tensorboard=True),
                (4,),
                {
                    "actions": (("UP", "DOWN"), ("UP", "DOWN", "NOOP")),
                    "anneal_episodes": (None, 2000),
                    "warm_up": (True, False),
                },
            ),
            "distributed-pg sweep --seeds 4 --set 'actions=UP DOWN,UP DOWN NOOP' --set "
            "anneal_episodes=None,2000 --set warm_up=True,False --preset karpathy --stop-reward "
            "0.5 --tensorboard",
        ),
    ],
)
def test_the_command_makes_the_same_sweep(plan: SweepPlan, command: str) -> None:
    assert sweep_command(plan) == command
    assert _plan(parse_command(shlex.split(command)[1:])) == plan


def test_seeds_out_of_order_stay_in_theirs() -> None:
    assert seeds_text((3, 2, 1, 2, 3)) == "3,2,1-3"


def test_a_group_is_drawn_by_hand() -> None:
    frames = np.array([1000.0, 2000.0, 4000.0])
    means = [np.array([-21.0, 0.0, 21.0]), np.array([-21.0, 10.5, 21.0])]
    curves = [Curve("run", None, [], frames, frames, frames, mean, mean) for mean in means]
    made = group_chart(Group("both", curves), 3, 4000.0, (-21.0, 21.0))
    (paths,) = made.groups
    assert paths.mean == "M250 1000L500 375L1000 0"
    assert paths.runs == "M250 1000L500 500L1000 0M250 1000L500 250L1000 0"
    assert paths.band == "M250 1000L500 250L1000 0L1000 0L500 500L250 1000Z"
    assert made.summary == "both: +21.0 after 4,000 emulated frames"
    alone = group_chart(Group("one", curves[:1]), 1, 8000.0, (-21.0, 21.0))
    assert (alone.groups[0].band, alone.groups[0].runs) == ("", "")
    together = overlaid("all", [made, alone])
    assert [(group.look, group.runs) for group in together.groups] == [(3, ""), (1, "")]


def test_runs_without_common_frames_have_no_mean() -> None:
    ends = np.array([[1000.0], [2000.0]])
    curves = [Curve("run", None, [], x, x, x, np.array([-21.0]), x) for x in ends]
    made = group_chart(Group("both", curves), 0, 2000.0, (-21.0, 21.0))
    assert (made.groups[0].mean, made.groups[0].band) == ("", "")
    assert made.groups[0].runs == "M500 1000M1000 1000"
    assert made.summary == "both: no common frames"


def test_a_long_run_is_thinned_but_keeps_its_end() -> None:
    frames = np.arange(1.0, 10 * MOST_POINTS)
    curve = Curve("run", None, [], frames, frames, frames, frames / 1000, frames / 1000)
    paths = group_chart(Group("two", [curve, curve]), 0, frames[-1], (-21.0, 21.0)).groups[0]
    for line in (paths.mean, *paths.runs.split("M")[1:]):
        assert line.count("L") < MOST_POINTS
        assert line.endswith("L1000 310")
