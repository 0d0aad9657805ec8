"""Sends the code of this process to Ray's workers, and refuses workers that run different code.

By default, Ray's workers search for modules in the driver's current folder, then in the folder of
its script, then in the node's environment. With a ``working_dir`` they search that first, and
neither of the driver's folders. So they get one that contains only a copy of this package. It does
not change during the run, even if the original does, and it also reaches nodes with another version
of the package, or none.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed_pg.determinism import environment
from distributed_pg.errors import RunError
from distributed_pg.runtime import _ray_private
from distributed_pg.system_info import PACKAGE, own_code, own_files
from distributed_pg.training.rollout_worker import WorkerInfo

_COMBINE = {
    # Lets ray.init() set a working_dir in a Ray job that already has one.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1"
}


@contextmanager
def code_for_workers() -> Iterator[dict[str, str]]:
    """Yield the ``runtime_env`` for ``ray.init()``, to be called in the ``with`` block.

    A restarted Ray gets the same code, even if the package has been edited since.
    """
    with tempfile.TemporaryDirectory(prefix="distributed_pg-") as folder:
        for name, content in own_files().items():
            path = Path(folder) / PACKAGE.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        with environment(_COMBINE), _ray_private.not_by_uv():
            yield {"working_dir": folder}


def check_code(info: WorkerInfo) -> None:
    """Refuse a worker that runs different code from this process.

    Raises:
        RunError: the worker runs different code.
    """
    here, there = own_code(), getattr(info, "code", None)  # older versions do not report it
    if there is None or there.digest != here.digest:
        raise RunError(
            f"a worker runs other code than this process: {there or 'an older distributed_pg'}, "
            f"and here {here}; have the same version there, and no other copy on PYTHONPATH"
        )
