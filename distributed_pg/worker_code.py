"""Send Ray's workers the code that this process runs.

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

from distributed_pg import ray_private
from distributed_pg.errors import RunError
from distributed_pg.kernels import environment
from distributed_pg.versions import PACKAGE, code_digest, own_code, python_files

_COMBINE = {
    # In a Ray job that has a working_dir, ray.init() must not have another one unless told so.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1"
}


@contextmanager
def code_for_workers() -> Iterator[dict[str, str]]:
    """The ``runtime_env`` to give ``ray.init()``, which has to be called in the ``with`` block.

    Raises:
        RunError: the package was changed since this process looked at it first.
    """
    with tempfile.TemporaryDirectory(prefix="distributed_pg-") as folder:
        copy = Path(folder) / PACKAGE.name
        for path in python_files(PACKAGE):
            target = copy / path.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        if code_digest(copy) != own_code().digest:
            raise RunError(f"{PACKAGE} was changed since this process started; start it again")
        with environment(_COMBINE), ray_private.not_by_uv():
            yield {"working_dir": folder}
