"""A short form of the runs that are ended in some way: real terminals, pipes, signals and Rays."""

from pathlib import Path

import pytest
from chaos_script import chaos


@pytest.mark.exhaustive
@pytest.mark.slow
def test_runs_that_are_ended_in_some_way_are_resumed_with_the_same_bits(tmp_path: Path) -> None:
    ways = ["hang_up", "closed_pipe", "raylet_killed"]
    # The last of these numbers loses its output and then a worker, about which it would speak.
    arguments = ("--ends", "3", "--seed", "9", "--lanes", "3", "--ways", ",".join(ways))
    record = chaos(tmp_path / "ends.json", *arguments)
    assert {ending["way"] for ending in record["endings"]} == set(ways)
    assert record["failures"] == 0
    assert record["lost_updates_at_most"] <= 1
