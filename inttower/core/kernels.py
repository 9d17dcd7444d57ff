"""Compiles inner loops with numba, at the first call; they run without the GIL."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` to machine code at its first call, keep the code on disk.

    Arithmetic is strict IEEE in the written order: state that a kernel learns is compared byte for
    byte, so the compiler must not reorder sums.
    """
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True)(function))


def relaxed_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """As :func:`kernel`, but sums may be reordered so that they vectorise: for scores only."""
    fast = {"reassoc", "contract", "nsz"}
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True, fastmath=fast)(function))
