"""Shared by the tests on real Ray, files, terminals and browsers."""

import warnings
from collections.abc import Iterator

import pytest
import ray


def _start() -> None:
    ray.init(
        address="local",
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={
            "metrics_report_interval_ms": 1000,
            "prestart_worker_first_driver": False,  # our workers have an environment of their own
        },
    )


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests that train in this process: three CPUs, whatever the machine has."""
    _start()
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def local_ray_is_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test that has ended this Ray, say so, and start another for those that follow.

    Without this, Ray would start one with as many CPUs as the machine has, on first use.
    """
    there = ray.is_initialized()
    yield
    if there and not ray.is_initialized():
        warnings.warn(f"{request.node.nodeid} has ended the Ray of its process", stacklevel=1)
        _start()
