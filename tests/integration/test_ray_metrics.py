"""What Prometheus gets of a run from Ray's own exporter, and what Grafana asks it for."""

import json
import re
import urllib.request
from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pytest
from command import ROOT, until
from prometheus_client.parser import text_string_to_metric_families

from distributed_pg.config import TrainConfig
from distributed_pg.monitoring.reporter import NullReporter
from distributed_pg.runtime.prometheus import GAUGES, STEPS_BUCKETS, TARGET, metrics_address
from distributed_pg.storage.metrics import UpdateRecord, read_metrics
from distributed_pg.trainer import resume_config, train

# With new noise at each step it wins a point in its first games. Ray exports no counter of 0.
CONFIG = TrainConfig(
    batch_size=2, hidden_units=8, num_workers=1, stop_episodes=4, repeat_noise_probability=0.0
)
DASHBOARD = ROOT / "docs" / "grafana-dashboard.json"
Samples = dict[tuple[str, str], float]
"""Values by name and by the histogram bucket that they are of."""


def scrape(address: str, run: str) -> Samples:
    """What Ray serves of a run now."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels.get("run") == run
    }


@dataclass(frozen=True)
class Scraped:
    """A run that was stopped and resumed."""

    targets: list[Any]
    """What Prometheus was told during the run of where to look."""
    samples: Samples
    lines: list[dict[str, Any]]
    """Of metrics.jsonl."""


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Scraped:
    run = tmp_path_factory.mktemp("metrics") / "some run"
    targets: list[Any] = []

    class Prometheus(NullReporter):
        def updated(self, record: UpdateRecord) -> None:
            until((run / TARGET).exists)
            targets.append(json.loads((run / TARGET).read_text()))

    train(replace(CONFIG, run_dir=run), Prometheus())
    train(resume_config(run, stop_episodes=8), Prometheus())
    lines = read_metrics(run / "metrics.jsonl")
    assert not (run / TARGET).exists()
    assert not (run / "tensorboard").exists()  # it was not asked for

    samples: Samples = {}
    last = {"updates_total": 4, "run_episodes": 8, "episode_steps_count": 8}

    def is_complete() -> bool:
        samples.update(scrape(metrics_address(), run.name))
        return all(samples.get((f"ray_distributed_pg_{n}", "")) == v for n, v in last.items())

    until(is_complete)
    return Scraped(targets, samples, lines)


def test_counters_are_those_of_the_run(scraped: Scraped) -> None:
    last = scraped.lines[-1]
    expected = {
        "updates": 4,
        "episodes": 8,
        "frames": last["frames"],
        "steps": sum(sum(line["lengths"]) for line in scraped.lines),
        "points_won": sum(line["points_won"] for line in scraped.lines),
        "points_lost": sum(line["points_lost"] for line in scraped.lines),
    }
    counters = {f"ray_distributed_pg_{name}_total": value for name, value in expected.items()}
    assert counters.items() <= {name: v for (name, _), v in scraped.samples.items()}.items()


def test_gauges_are_those_of_the_last_update(scraped: Scraped) -> None:
    for name, (field, _) in GAUGES.items():
        value = scraped.samples[f"ray_distributed_pg_{name}", ""]
        assert value == pytest.approx(scraped.lines[-1][field]), name


def test_episode_lengths_are_counted_in_their_buckets(scraped: Scraped) -> None:
    lengths = [length for line in scraped.lines for length in line["lengths"]]
    for bucket in STEPS_BUCKETS:
        count = scraped.samples["ray_distributed_pg_episode_steps_bucket", str(bucket)]
        assert count == sum(length <= bucket for length in lengths)


def test_prometheus_is_told_where_to_look_while_the_run_goes_on(scraped: Scraped) -> None:
    assert scraped.targets == 4 * [[{"targets": [metrics_address()], "labels": {"job": "ray"}}]]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def test_grafana_asks_for_nothing_that_is_not_exported(scraped: Scraped) -> None:
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]] + [
        one["query"]["query"] for one in dashboard()["templating"]["list"][1:]
    ]
    asked = {name for query in queries for name in re.findall(r"\bray_\w+", query)}
    exported = {name for name, _ in scraped.samples}
    assert asked <= exported
    # Ray makes the sum of a histogram up; the counter ray_distributed_pg_steps_total is right.
    assert not [name for name in asked if name.endswith("_sum")]
    figures = ("reward_mean_100", "entropy", "episodes_total", "frames_total", "worker_busy")
    more = ("workers", "update_seconds", "gradient_norm", "weights_norm")
    assert {f"ray_distributed_pg_{name}" for name in figures + more} <= asked


def test_every_query_is_of_the_chosen_runs() -> None:
    for panel in dashboard()["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            names = re.findall(r"\bray_\w+", target["expr"])
            assert len(names) == target["expr"].count('{run=~"$run"}') >= 1
    assert [one["name"] for one in dashboard()["templating"]["list"]] == ["datasource", "run"]


def test_the_panels_have_ids_and_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert max(Counter(panel["id"] for panel in panels).values()) == 1
    places = [panel["gridPos"] for panel in panels]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 and p["w"] * p["h"] > 0 for p in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)
