"""Compiles the step of a game, or loads its code.

The compiler is held to the instructions that every CPU of its kind has, and the compiled step is
used only if it gives the bits of numpy in this process. So a run is the same with and without it.
"""

import functools
import hashlib
import importlib.util
import logging
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from distributed_pg.algo.policy import Floats, Policy
from distributed_pg.compiled import kernel
from distributed_pg.determinism import GENERIC_COMPILER
from distributed_pg.errors import one_line

Step: TypeAlias = Callable[..., int]
""":func:`distributed_pg.compiled.kernel.step`, compiled."""

_LOG = logging.getLogger(__name__)

_DAMAGED = (OSError, EOFError, pickle.PickleError, AttributeError, ImportError, IndexError)
"""Errors of files that numba cannot write or read."""


def is_installed() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


@functools.cache
def compiled_step(hidden_units: int) -> Step | None:
    """The compiled step for policies of this size; None where numpy has to play.

    numba must be installed, and not be turned off by ``NUMBA_DISABLE_JIT=1``. Loading takes half a
    second, and a few seconds where the step is compiled, once on each machine.
    """
    is_turned_off = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"
    if is_turned_off or not is_installed() or hidden_units % kernel.MULTIPLE:
        return None
    os.environ.update(GENERIC_COMPILER)
    import numba

    folder = next(cache_folders(), None)
    if folder is not None:
        try:
            return _if_equal(numba.njit(cache=True)(_module_in(folder).step), hidden_units)
        except _DAMAGED as error:
            _LOG.warning(f"{folder} cannot keep compiled code: {one_line(error)}")
    return _if_equal(numba.njit(kernel.step), hidden_units)


def _if_equal(step: Step, hidden_units: int) -> Step | None:
    """The step if it has the bits of numpy; its first call compiles it or loads its code."""
    return step if has_the_bits_of_numpy(step, hidden_units) else None


def has_the_bits_of_numpy(step: Step, hidden_units: int) -> bool:
    """Whether a step gives the bits of :meth:`Policy.forward`, on random pixels."""
    random = np.random.default_rng(0)
    counts = [*range(40), 100, 1000]
    for current_frame in (False, True):
        policy = Policy.init(0, 6400, hidden_units, 2, current_frame)
        policy.w1[:] = random.normal(size=policy.w1.shape) / 80
        policy.w2[:, 1] = random.normal(size=hidden_units)
        if not all(_agrees(step, policy, np.sort(random.permutation(6400)[:n])) for n in counts):
            return False
    return True


def _agrees(step: Step, policy: Policy, pixels: NDArray[np.intp]) -> bool:
    """Whether a step agrees if these pixels change, every other one to the background."""
    expected = np.where(np.arange(len(pixels)) % 2, -1.0, 1.0).astype(np.float32)
    screens = np.zeros((2, 210, 160), np.uint8)  # now and before; 0 is the background
    screens[(expected < 0).astype(int), 2 * (pixels // 80), 2 * (pixels % 80)] = 1
    now, before = screens.view(np.uint64)
    hidden, outputs = np.empty(len(policy.w2), np.float32), np.empty(2, np.float32)
    frame_sum = np.linspace(-0.1, 0.1, policy.w1.shape[1] - len(hidden), dtype=np.float32)
    their_frame_sum = frame_sum.copy() if frame_sum.size else None
    found, signs = np.empty(6400, np.intp), np.empty(6400, np.float32)
    end = step(
        now,
        before[:160:2].copy(),
        np.full(20, 0x00FF00FF00FF00FF, np.uint64),
        np.arange(256, dtype=np.float32),
        np.array([0, 0, 80], np.intp),
        *read_only(policy),
        np.empty(policy.w1.shape[1], np.float32),
        frame_sum,
        hidden,
        outputs,
        found,
        signs,
        0,
    )
    ours = np.concatenate([found[:end], signs[:end], hidden, outputs])
    theirs = np.concatenate([pixels, expected, *policy.forward(pixels, expected, their_frame_sum)])
    return np.array_equal(ours, theirs)


def read_only(policy: Policy) -> tuple[Floats, Floats]:
    """The weights as a step takes them.

    Ray's arrays are read-only; for others, numba would compile the step again.
    """
    w1, w2 = policy.w1.view(), policy.w2.view()
    w1.flags.writeable = w2.flags.writeable = False
    return w1, w2


def _module_in(folder: Path) -> ModuleType:
    """The kernel, loaded from a copy of its source in a folder.

    numba keeps compiled code by the path of its source, and a worker's source lies in a folder of
    its run.
    """
    source = Path(kernel.__file__).read_bytes()
    path = folder / f"distributed_pg_kernel_{hashlib.sha256(source).hexdigest()[:16]}.py"
    if not path.exists():
        own = path.with_suffix(f".{os.getpid()}")
        own.write_bytes(source)
        own.replace(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where numba looks for it when it loads compiled code
    spec.loader.exec_module(module)
    return module


def cache_folders() -> Iterator[Path]:
    """Yield folders for compiled code that only this user can write to, best first.

    numba's files are pickles. Like the code of this package, they are safe to load only if nobody
    else can have written them.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    user = os.getuid() if hasattr(os, "getuid") else "user"
    temporary = Path(tempfile.gettempdir(), f"distributed_pg-{user}")
    for folder in (Path(caches, "distributed_pg"), temporary):
        # Where there is no home, the path is not absolute.
        if folder.is_absolute() and _is_made(folder) and _is_private(folder):
            yield folder


def _is_made(folder: Path) -> bool:
    """Make a folder, unless it is there; return whether it is there now."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return True


def _is_private(folder: Path) -> bool:
    """Whether a folder belongs to this user, who alone can write to it."""
    if not hasattr(os, "getuid"):
        return True  # Windows: both candidates lie in the user's profile
    found = folder.lstat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not others_write
