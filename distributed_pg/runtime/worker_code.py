"""Send Ray's workers the code that this process runs, and refuse those that run other code.

Left to itself, Ray has its workers look for modules in the driver's current folder first, then in
that of its script, and then wherever the node's environment says. Given a ``working_dir``, they
look there first, and in neither of the driver's folders. So they are given one that holds a copy of
this package and nothing else. It stays as it is during the run, whatever becomes of the original,
and reaches the nodes on which another version is installed, or none.
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
    # In a Ray job that has a working_dir, ray.init() must not have another one unless told so.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1"
}


@contextmanager
def code_for_workers() -> Iterator[dict[str, str]]:
    """The ``runtime_env`` to give ``ray.init()``, which has to be called in the ``with`` block.

    A Ray that is started again gets the same code, even if the package was edited meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="distributed_pg-") as folder:
        for name, content in own_files().items():
            path = Path(folder) / PACKAGE.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        with environment(_COMBINE), _ray_private.not_by_uv():
            yield {"working_dir": folder}


def check_code(info: WorkerInfo) -> None:
    """Refuse a worker that runs other code than this process, or the run would not be its own.

    Raises:
        RunError: it does.
    """
    here, there = own_code(), getattr(info, "code", None)  # old code does not say which it is
    if there is None or there.digest != here.digest:
        raise RunError(
            f"a worker runs other code than this process: {there or 'an older distributed_pg'}, "
            f"and here {here}; have the same version there, and no other copy on PYTHONPATH"
        )
