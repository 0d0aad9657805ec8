"""Ray's private parts: all there in the version we allow, and what is done without them."""

import importlib
from importlib.metadata import requires, version
from operator import attrgetter

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from distributed_pg.runtime import _ray_private


def ray_requirement() -> Requirement:
    wanted = [Requirement(text) for text in requires("distributed-pg") or ()]
    return next(one for one in wanted if one.name == "ray" and one.marker is None)


def test_ray_is_bounded_to_the_release_whose_private_parts_are_known() -> None:
    """A newer release may have moved them: it is allowed when these tests pass with it."""
    allowed, installed = ray_requirement().specifier, Version(version("ray"))
    assert installed in allowed
    assert Version(f"{installed.major}.{installed.minor + 1}.0") not in allowed


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("ray._private.utils", "get_num_cpus"),
        ("ray._private.utils", "set_sigterm_handler"),
        ("ray._private.utils", "get_dashboard_dependency_error"),
        ("ray._private.worker", "listen_error_messages"),
        ("ray._common.utils", "get_default_system_temp_dir"),
        ("ray._raylet", "Config"),
        ("ray._raylet", "AuthenticationTokenLoader"),
        ("ray._raylet", "GcsClient"),
        ("ray._private.worker", "_global_node"),
        ("ray._private.node", "Node.start_api_server"),
        ("ray._private.node", "Node.start_monitor"),
        ("ray._private.node", "Node.start_log_monitor"),
        ("ray._private.ray_constants", "ENABLE_RAY_CLUSTER"),
        ("ray._private.ray_constants", "RAY_ENABLE_UV_RUN_RUNTIME_ENV"),
    ],
)
def test_each_part_is_there(module: str, name: str) -> None:
    attrgetter(name)(importlib.import_module(module))  # AttributeError: it is not there


def test_without_them_there_is_something_else_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def moved(name: str, package: str | None = None) -> object:
        if name.startswith(("ray._private", "ray._raylet", "ray._common")):
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", moved)
    assert _ray_private.limited_cpus() is None
    assert _ray_private.temporary_folder() is None
    assert _ray_private.session_folder() is None
    assert not _ray_private.has_token()
    _ray_private.reread_environment()
    assert _ray_private.cluster_metadata("127.0.0.1:1") == "{}"
    with (
        _ray_private.on_loopback(),
        _ray_private.without_helpers(),
        _ray_private.without_dashboard_imports(),
        _ray_private.our_sigterm_handler(),
        _ray_private.not_by_uv(),
        _ray_private.no_listener(),
    ):
        pass
