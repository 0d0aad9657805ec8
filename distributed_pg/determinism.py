"""Hold the arithmetic to one instruction set, so that it has the same bits on every x86-64 CPU.

numpy, its OpenBLAS and the C library each choose their kernels by the CPU they find, and kernels
of different widths round differently: with fused multiply-add even ``math.exp`` does. Holding all
three to SSE makes an episode's gradient the same on every machine. It is also faster: wide vector
instructions lower the clock of many CPUs for longer than an emulator step takes.

Nothing here may import numpy: the variables count only if they are set before it is loaded, and
the C library reads its own only when a process starts.
"""

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1"
)

_SSE_ONLY = {
    "OPENBLAS_CORETYPE": "Nehalem",
    # Names of numpy >= 2.4 and of the versions before it; numpy passes over those it does not know.
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR "
    "AVX F16C FMA3 FMA4 XOP AVX2 AVX512F AVX512CD AVX512_KNL AVX512_KNM AVX512_SKX AVX512_CLX "
    "AVX512_CNL",
    # Names of glibc >= 2.33 and of the versions before it.
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F,-AVX2_Usable,-FMA_Usable",
}


def on_x86() -> bool:
    """Whether this machine has an x86-64 CPU."""
    return platform.machine().lower() in ("x86_64", "amd64")


def kernel_environment() -> dict[str, str]:
    """Environment variables for a process whose floating-point bits must not depend on its CPU."""
    return ONE_THREAD | (_SSE_ONLY if on_x86() else {})


def pin_kernels() -> None:
    """Set :func:`kernel_environment` in this process; call it before numpy is imported."""
    os.environ.update(kernel_environment())


@contextmanager
def environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Other environment variables for the time of the ``with`` block; None: without the variable.

    For processes that are started within it.
    """
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def native_kernels() -> AbstractContextManager[None]:
    """Processes started within the ``with`` block use all that their CPU has, on one thread."""
    return environment(dict.fromkeys(kernel_environment()) | ONE_THREAD)
