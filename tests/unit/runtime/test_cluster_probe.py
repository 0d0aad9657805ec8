"""What a process that joins a cluster says, among whatever Ray prints there."""

import sys
from typing import Any

import pytest

from distributed_pg.runtime.cluster_probe import facts_in, join

DEAD_NODE = """\x1b[33m(raylet)\x1b[0m The node with node id: 1f has been marked dead because the
detector has missed too many heartbeats from it. This can happen when (1) raylet crashes
(2) raylet has lagging heartbeats due to slow network or busy workload.
"""


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joining a cluster of seven CPUs, in which nodes die meanwhile."""

    def init(*_: Any, **__: Any) -> None:
        sys.stdout.write(DEAD_NODE.rstrip())  # and another thread is about to end this line

    def cluster_cpus() -> int:
        sys.stdout.write(DEAD_NODE)
        return 7

    metadata = '{"ray_version": "2.60.0", "python_version": "3.11.7"}'
    probe = "distributed_pg.runtime.cluster_probe"
    monkeypatch.setattr(f"{probe}._ray_private.cluster_metadata", lambda _: metadata)
    monkeypatch.setattr(f"{probe}.ray.init", init)
    monkeypatch.setattr(f"{probe}.cluster_cpus", cluster_cpus)


def test_facts_are_found_among_what_ray_prints(
    joined: None, capsys: pytest.CaptureFixture[str]
) -> None:
    join("head:6379")
    sys.stdout.write(f"\n{DEAD_NODE}")
    facts = facts_in(capsys.readouterr().out)
    assert facts == {"ray_version": "2.60.0", "python_version": "3.11.7", "cpus": 7}


@pytest.mark.parametrize("output", ["", DEAD_NODE, '7\n[7]\n"cpus"\nnull\n', "{"])
def test_where_nothing_is_said_there_are_no_facts(output: str) -> None:
    assert facts_in(output) == {}
