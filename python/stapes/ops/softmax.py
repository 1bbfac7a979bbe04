"""Softmax over the last axis."""

from __future__ import annotations

from stapes import _core
from stapes.device import Array, as_input, output


def softmax_fwd(x: Array, *, out: Array | None = None) -> Array:
    """Compute ``y = exp(x) / sum(exp(x))`` over the last axis, without overflow.

    Parameters
    ----------
    x : array
        At least one axis, float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    out : array, optional
        Overwritten and returned; may be ``x`` itself.

    Returns
    -------
    array
        ``y``, shape and dtype of ``x``. A row with NaN or +inf, or of -inf alone, becomes NaN.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device.
    ValueError
        If ``x`` has no axis, or ``out`` has another shape, is read-only, or overlaps ``x`` without
        being it.
    """
    x = as_input("softmax_fwd", "x", x)
    y = output("softmax_fwd", "out", out, x, x.shape)
    _core.softmax_fwd(x, y)
    return y


def softmax_bwd(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """Compute ``dx = y * (dy - sum(dy * y))`` over the last axis.

    Parameters
    ----------
    dy, y : array
        Gradient of the output, and the output of `softmax_fwd`.
    out : array, optional
        Overwritten and returned; may be ``dy`` itself.

    Returns
    -------
    array
        ``dx``, shape and dtype of ``dy``.

    Raises
    ------
    TypeError, ValueError
        As `softmax_fwd`.
    """
    dy, y = as_input("softmax_bwd", "dy", dy), as_input("softmax_bwd", "y", y)
    dx = output("softmax_bwd", "out", out, dy, dy.shape)
    _core.softmax_bwd(dy, y, dx)
    return dx
