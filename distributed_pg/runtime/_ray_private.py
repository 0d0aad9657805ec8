"""All uses of Ray's private API, each with a fallback.

``pyproject.toml`` caps Ray's version because of this module. A version that lacks one of these
parts still trains, without what the part provides.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_AGENT_NEEDS = (
    "aiohttp",
    "aiohttp_cors",
    "grpc",
    "opencensus",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
)
"""What Ray's agent on each node imports if it is to serve metrics."""


def part(module: str, name: str) -> Any:
    """The attribute ``name`` of Ray's private ``module``; None if this version lacks it."""
    loaded = _module(module)
    return None if loaded is None else getattr(loaded, name, None)


def limited_cpus() -> float | None:
    """CPUs of this machine or limit of the container, possibly fractional; None: unknown."""
    count = part("ray._private.utils", "get_num_cpus")
    if count is None:
        return None
    return float(count(override_docker_cpu_warning=True, truncate=False))


def temporary_folder() -> str | None:
    """The folder for temporary files of a local Ray; None: unknown."""
    folder = part("ray._common.utils", "get_default_system_temp_dir")
    return None if folder is None else str(folder())


def session_folder() -> str | None:
    """The session folder of the Ray that this process is connected to; None: unknown."""
    node = part("ray._private.worker", "_global_node")
    return None if node is None else str(node.get_session_dir_path())


def reread_environment() -> None:
    """Make Ray reread its environment variables, which it otherwise reads once on import.

    Without this part, variables set later affect only new processes, not this one.
    """
    config = part("ray._raylet", "Config")
    loader = part("ray._raylet", "AuthenticationTokenLoader")
    if config is not None:
        config.initialize("")
    if loader is not None:
        loader.instance().reset_cache()


def has_token() -> bool:
    """Whether the user has a cluster token, in a file or a variable."""
    loader = part("ray._raylet", "AuthenticationTokenLoader")
    return loader is not None and bool(loader.instance().has_token(ignore_auth_mode=True))


def cluster_metadata(address: str) -> str:
    """A cluster's metadata as JSON, including its versions; ``{}``: unknown.

    Raises:
        RayError: the cluster does not answer.
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
    """Make a Ray started in the ``with`` block listen only on the loopback address.

    Ray does so by default on systems without cluster support; elsewhere it treats a loopback
    address as a mistake and listens on all. Without this part it listens on all addresses and
    requires its token.
    """
    # Holds the value of RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER.
    with _replaced(_module("ray._private.ray_constants"), "ENABLE_RAY_CLUSTER", False):
        yield


@contextmanager
def without_helpers() -> Iterator[None]:
    """Start a Ray in the ``with`` block without three processes that a run never uses.

    They are the dashboard's server, for which Ray waits even if there is no dashboard, the monitor
    of the autoscaler, and the monitor that sends the workers' output to the driver. Without this
    part they run, and the start takes about two seconds longer.
    """
    node = part("ray._private.node", "Node")
    with ExitStack() as stack:
        for name in ("start_api_server", "start_monitor", "start_log_monitor"):
            stack.enter_context(_replaced(node, name, lambda *_, **__: None))
        yield


@contextmanager
def without_dashboard_imports() -> Iterator[None]:
    """Start a Ray in the ``with`` block without importing what only its agents need.

    Ray does so to see whether it is installed. Looking for it is enough, and saves the learner
    0.3 seconds and the memory. Without this part it is imported.
    """
    utils, name = _module("ray._private.utils"), "get_dashboard_dependency_error"
    if all(map(find_spec, _AGENT_NEEDS)):
        with _replaced(utils, name, lambda: None):
            yield
    else:
        yield


@contextmanager
def not_by_uv() -> Iterator[None]:
    """Under ``uv run``, keep Ray from sending the current folder and running workers with uv.

    Without this part the workers may run different code and be refused.
    """
    with _replaced(_module("ray._private.ray_constants"), "RAY_ENABLE_UV_RUN_RUNTIME_ENV", False):
        yield


@contextmanager
def our_sigterm_handler() -> Iterator[None]:
    """Keep Ray from installing its SIGTERM handler, which exits without saving.

    Without this part its handler is active until :func:`ray.init` returns.
    """
    with _replaced(_module("ray._private.utils"), "set_sigterm_handler", lambda _: None):
        yield


@contextmanager
def no_listener() -> Iterator[None]:
    """Keep a Ray started or joined in the ``with`` block from printing to the terminal.

    Otherwise a thread prints the errors that nodes report, such as twenty lines on the state of a
    dead raylet, regardless of ``log_to_driver`` and of log levels. Without this part the lines are
    shown.
    """
    with _replaced(_module("ray._private.worker"), "listen_error_messages", lambda *_: None):
        yield


def show_exceptions_at_once() -> None:
    """Have Python alone show the exception that ends this process, if it is not caught.

    Ray first sends it to its head. Without this part, and if the head is lost, that takes a minute,
    after which Ray ends the process without a traceback.
    """
    worker = _module("ray._private.worker")
    if sys.excepthook is getattr(worker, "custom_excepthook", None):
        sys.excepthook = getattr(worker, "normal_excepthook", sys.__excepthook__)


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Replace an attribute of a private module or class during the ``with`` block, if it exists."""
    if not hasattr(owner, name):
        yield
        return
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
