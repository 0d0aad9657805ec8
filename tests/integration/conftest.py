"""Shared by the tests on real Ray, files, terminals and browsers."""

from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests that train in this process: three CPUs, whatever the machine has."""
    ray.init(
        address="local",
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={"metrics_report_interval_ms": 1000},
    )
    yield
    ray.shutdown()
