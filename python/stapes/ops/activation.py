"""Elementwise activations."""

from __future__ import annotations

from stapes import _core
from stapes.device import Array, as_input, output


def relu_fwd(x: Array, *, out: Array | None = None) -> Array:
    """Compute ``y = max(x, 0)``; NaN passes through.

    Parameters
    ----------
    x : array
        Any shape, float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    out : array, optional
        Overwritten and returned; may be ``x`` itself.

    Returns
    -------
    array
        ``y``, shape and dtype of ``x``.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device.
    ValueError
        If ``out`` has another shape, is read-only, or overlaps ``x`` without being it.
    """
    x = as_input("relu_fwd", "x", x)
    y = output("relu_fwd", "out", out, x, x.shape)
    _core.relu_fwd(x, y)
    return y


def relu_bwd(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """Compute ``dx = dy`` where ``y > 0``, else 0.

    Parameters
    ----------
    dy, y : array
        Gradient of the output, and the output (the input of `relu_fwd` serves as well).
    out : array, optional
        Overwritten and returned; may be ``dy`` itself.

    Returns
    -------
    array
        ``dx``, shape and dtype of ``dy``.

    Raises
    ------
    TypeError, ValueError
        As `relu_fwd`.
    """
    dy, y = as_input("relu_bwd", "dy", dy), as_input("relu_bwd", "y", y)
    dx = output("relu_bwd", "out", out, dy, dy.shape)
    _core.relu_bwd(dy, y, dx)
    return dx
