"""Have the processes that this one starts run the code that it runs, whatever lies around.

``python -c`` and ``python -m`` look for modules in the current folder first. So do the processes of
:mod:`multiprocessing`, until they are told where to look.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def own_python(code: str, *arguments: str) -> list[str]:
    """A command that runs Python code, which finds the modules that this process finds.

    Args:
        code: what to run; ``sys`` is imported.
        arguments: what it finds in ``sys.argv[1:]``.
    """
    # sys is built in, so no file is looked for before the path is set.
    return [sys.executable, "-c", f"import sys; sys.path[:] = {_path()}; {code}", *arguments]


def own_command(*arguments: str) -> list[str]:
    """The ``distributed-pg`` command with ``arguments``, as this process's own code has it."""
    run = "runpy.run_module('distributed_pg', run_name='__main__', alter_sys=True)"
    return own_python(f"import runpy; {run}", *arguments)


def _path() -> list[str]:
    """Where this process looks for modules; an empty name stands for the current folder."""
    try:
        return [os.path.abspath(folder) for folder in sys.path]  # noqa: PTH100 - may be no folder
    except FileNotFoundError:  # the current folder is gone, and no module is in it
        return [folder for folder in sys.path if os.path.isabs(folder)]  # noqa: PTH117


@contextmanager
def neutral_folder() -> Iterator[None]:
    """Be in an empty folder for the time of the ``with`` block, in all threads.

    Processes of :mod:`multiprocessing` that start in the block must have ended at its end.
    """
    try:
        before = os.getcwd()  # noqa: PTH109 - as Path has no chdir
    except FileNotFoundError:  # it was deleted, as the other one will be
        before = None
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            if before is not None:
                os.chdir(before)
