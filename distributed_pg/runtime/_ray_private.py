"""All that we use of Ray's private parts: in one place, and each with what is done without it.

``pyproject.toml`` bounds Ray's version from above because of this module. A version without one of
these parts still trains, but for what the part is for.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def part(module: str, name: str) -> Any:
    """The private part ``name`` of Ray's ``module``; None if there is none in this version."""
    found = _module(module)
    return None if found is None else getattr(found, name, None)


def limited_cpus() -> float | None:
    """CPUs of this machine, or of the container's limit, fractions included; None: not known."""
    count = part("ray._private.utils", "get_num_cpus")
    if count is None:
        return None
    return float(count(override_docker_cpu_warning=True, truncate=False))


def temporary_folder() -> str | None:
    """Where a Ray that is started here keeps its files; None: not known."""
    folder = part("ray._common.utils", "get_default_system_temp_dir")
    return None if folder is None else str(folder())


def session_folder() -> str | None:
    """The folder of the Ray that this process is connected to; None: not known."""
    node = part("ray._private.worker", "_global_node")
    return None if node is None else str(node.get_session_dir_path())


def reread_environment() -> None:
    """Have Ray look at its environment variables again: it did when it was imported.

    Without that part, variables that are set later count for the processes that are started, and
    not for this one.
    """
    config = part("ray._raylet", "Config")
    loader = part("ray._raylet", "AuthenticationTokenLoader")
    if config is not None:
        config.initialize("")
    if loader is not None:
        loader.instance().reset_cache()


def has_token() -> bool:
    """Whether the user has a token for clusters, in a file or a variable."""
    loader = part("ray._raylet", "AuthenticationTokenLoader")
    return loader is not None and bool(loader.instance().has_token(ignore_auth_mode=True))


def cluster_metadata(address: str) -> str:
    """What a cluster says of itself, its versions among it, in JSON; ``{}``: not known.

    Raises:
        RayError: it does not answer.
    """
    client = part("ray._raylet", "GcsClient")
    if client is None:
        return "{}"
    stored = client(address=address).internal_kv_get(
        b"CLUSTER_METADATA", namespace=b"cluster", timeout=5
    )
    return str((stored or b"{}").decode())


@contextmanager
def on_loopback() -> Iterator[None]:
    """A Ray that is started within listens on this machine's loopback address alone.

    Ray does so by itself on systems where it cannot be a cluster; elsewhere it takes a loopback
    address for a mistake and listens on all. Without that part it listens on all addresses, and
    asks for its token.
    """
    # What RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER was read into.
    with _replaced("ray._private.ray_constants", "ENABLE_RAY_CLUSTER", False):
        yield


@contextmanager
def not_by_uv() -> Iterator[None]:
    """Under ``uv run``, Ray does not send the current folder and run workers with uv.

    Without that part the code that it runs may be another, and be refused.
    """
    with _replaced("ray._private.ray_constants", "RAY_ENABLE_UV_RUN_RUNTIME_ENV", False):
        yield


@contextmanager
def our_sigterm_handler() -> Iterator[None]:
    """Ray does not set a SIGTERM handler of its own within, which exits without saving.

    Without that part it does, until :func:`ray.init` returns.
    """
    with _replaced("ray._private.utils", "set_sigterm_handler", lambda _: None):
        yield


@contextmanager
def no_listener() -> Iterator[None]:
    """A Ray that is started or connected to within prints nothing of its own on our terminal.

    Else a thread prints there what the cluster's nodes report, above all twenty lines of a dead
    raylet's state, and neither ``log_to_driver`` nor a logger's level keeps it from that. Without
    that part the lines are shown.
    """
    with _replaced("ray._private.worker", "listen_error_messages", lambda *_: None):
        yield


@contextmanager
def _replaced(module: str, name: str, value: object) -> Iterator[None]:
    """Another value for a private part for the time of the ``with`` block, if it is there."""
    found = _module(module)
    if found is None or not hasattr(found, name):
        yield
        return
    before = getattr(found, name)
    setattr(found, name, value)
    try:
        yield
    finally:
        setattr(found, name, before)


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
