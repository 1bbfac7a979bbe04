"""Change of dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from stapes import _core
from stapes.device import Array, as_input, output


def cast(x: Array, dtype: Any, *, out: Array | None = None) -> Array:
    """Convert ``x`` to another floating dtype, rounded to nearest, ties to even.

    Parameters
    ----------
    x : array
        Any shape, float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    dtype : dtype
        Another of these; or the same, which copies.
    out : array, optional
        Of this dtype; overwritten and returned.

    Returns
    -------
    array
        Shape of ``x``.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device; or if ``dtype`` is none in which
        this device computes.
    ValueError
        If ``out`` has another shape, is read-only, or overlaps ``x``.
    """
    x = as_input("cast", "x", x)
    y = output("cast", "out", out, x, x.shape, np.dtype(dtype))
    if y.dtype != np.dtype(dtype):
        raise TypeError(f"cast: out must be {np.dtype(dtype)}, got {y.dtype}")
    _core.cast(x, y)
    return y
