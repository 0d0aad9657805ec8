"""Makes child processes run the same code as this process, whatever the current folder holds.

``python -c`` and ``python -m`` look for modules in the current folder first. So do processes of
:mod:`multiprocessing` until they receive the parent's path.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PARENT_SECONDS = 0.5
"""Time between two looks at whether the parent process is there."""


def own_python(code: str, *arguments: str) -> list[str]:
    """Return a command that runs Python code with this process's module path.

    Args:
        code: the code; ``sys`` is imported already.
        arguments: the code's ``sys.argv[1:]``.
    """
    # sys is built in, so Python searches for no file before the path is set.
    return [sys.executable, "-c", f"import sys; sys.path[:] = {_path()}; {code}", *arguments]


def own_command(*arguments: str, end_with_parent: bool = False) -> list[str]:
    """Return a command that runs ``distributed-pg`` with ``arguments`` from this process's code.

    Args:
        arguments: the command line.
        end_with_parent: make it save and stop when this process has ended, for whatever reason.
    """
    run = "runpy.run_module('distributed_pg', run_name='__main__', alter_sys=True)"
    if end_with_parent:
        run = (
            f"from distributed_pg.own_code import stop_without; stop_without({os.getpid()}); {run}"
        )
    return own_python(f"import runpy; {run}", *arguments)


def stop_without(parent: int) -> None:
    """Send SIGTERM to this process when its parent has ended.

    Args:
        parent: the id of the parent's process.
    """

    def wait() -> None:
        while _is_there(parent):
            time.sleep(_PARENT_SECONDS)
        signal.raise_signal(signal.SIGTERM)  # which Windows has as well

    threading.Thread(target=wait, name="parent watch", daemon=True).start()


def _is_there(parent: int) -> bool:
    """Whether the parent process is running."""
    if sys.platform != "win32":
        return os.getppid() == parent
    import psutil  # slow, and few processes need it

    return psutil.pid_exists(parent)  # on Windows a child keeps the id of its parent


def _path() -> list[str]:
    """This process's module path as absolute folders; an empty entry is the current folder."""
    try:
        return [os.path.abspath(folder) for folder in sys.path]  # noqa: PTH100 - may be a file
    except FileNotFoundError:  # the current folder was deleted, so it holds no modules
        return [folder for folder in sys.path if os.path.isabs(folder)]  # noqa: PTH117


@contextmanager
def neutral_folder() -> Iterator[None]:
    """Make an empty folder the current one within the ``with`` block, for all threads.

    Processes of :mod:`multiprocessing` started in the block must end before it does.
    """
    try:
        previous = os.getcwd()  # noqa: PTH109 - Path has no chdir
    except FileNotFoundError:  # it was deleted
        previous = None
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            if previous is not None:
                os.chdir(previous)
