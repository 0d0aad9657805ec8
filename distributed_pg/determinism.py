"""Restricts arithmetic to one instruction set, for bit-identical results on every x86-64 CPU.

numpy, its OpenBLAS and the C library each select kernels for the CPU they run on, and kernels of
different vector widths round differently; with fused multiply-add, even ``math.exp`` does.
Restricting all three to SSE makes an episode's gradient the same on every machine. It is also
faster: wide vector instructions lower the clock of many CPUs for longer than an emulator step.

This module must not import numpy, which reads its variables on import. The C library reads its own
only when a process starts.
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
    # Names of numpy >= 2.4, then of older versions; numpy ignores names it does not know.
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR "
    "AVX F16C FMA3 FMA4 XOP AVX2 AVX512F AVX512CD AVX512_KNL AVX512_KNM AVX512_SKX AVX512_CLX "
    "AVX512_CNL",
    # Names of glibc >= 2.33, then of older versions.
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F,-AVX2_Usable,-FMA_Usable",
}

GENERIC_COMPILER = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
"""Holds numba to the instructions of every CPU of its kind, on x86-64 to SSE2."""


def on_x86() -> bool:
    """Whether this machine has an x86-64 CPU."""
    return platform.machine().lower() in ("x86_64", "amd64")


def kernel_environment() -> dict[str, str]:
    """Environment variables that make a process's floating-point bits independent of its CPU."""
    return ONE_THREAD | (_SSE_ONLY if on_x86() else {})


def pin_kernels() -> None:
    """Apply :func:`kernel_environment` to this process; call it before importing numpy."""
    os.environ.update(kernel_environment())


@contextmanager
def environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Change environment variables within the ``with`` block, for processes started in it.

    Args:
        changes: new values by name; None removes the variable.
    """
    previous = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(previous)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def native_kernels() -> AbstractContextManager[None]:
    """Let processes started in the ``with`` block use all CPU instructions, on one thread."""
    return environment(dict.fromkeys(kernel_environment()) | ONE_THREAD)
