"""Linear: ``y = x w^T + b`` over the last axis.

``x`` is (..., in), ``w`` (out, in), ``y`` (..., out).

float32 or float64 on the CPU; float32, float16 or bfloat16 on CUDA. ``out``, ``TypeError`` and
``ValueError`` are as in `stapes.ops.conv`.
"""

from __future__ import annotations

from stapes import _core
from stapes.device import Array, as_input, output, wide_dtype
from stapes.ops._args import precision_name
from stapes.ops.conv import fused_relu


def linear_fwd(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    activation: str | None = None,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """Compute ``y = x w^T + b``.

    Parameters
    ----------
    x : array
        (..., in), at least 2-D.
    w : array
        (out, in).
    b : array, optional
        (out,).
    activation : {None, "relu"}
        "relu" is computed in the same pass.
    precision, out
        See `stapes.ops.conv`.

    Returns
    -------
    array
        ``y``, (..., out).

    Raises
    ------
    TypeError, ValueError
        See the module.
    """
    op = "linear_fwd"
    x, w = as_input(op, "x", x), as_input(op, "w", w)
    b = None if b is None else as_input(op, "b", b)
    relu = fused_relu(op, activation)
    y = output(op, "out", out, x, (*x.shape[:-1], *w.shape[:1]))
    _core.linear_fwd(x, w, b, y, relu, precision_name(op, precision))
    return y


def linear_dgrad(
    dy: Array, w: Array, *, precision: str = "fp32", out: Array | None = None
) -> Array:
    """Compute the gradient by the input, ``dx = dy w``.

    Parameters
    ----------
    dy : array
        (..., out).
    w : array
        (out, in).
    precision, out
        See `stapes.ops.conv`.

    Returns
    -------
    array
        ``dx``, (..., in).

    Raises
    ------
    TypeError, ValueError
        See the module.
    """
    op = "linear_dgrad"
    dy, w = as_input(op, "dy", dy), as_input(op, "w", w)
    dx = output(op, "out", out, dy, (*dy.shape[:-1], *w.shape[1:]))
    _core.linear_dgrad(dy, w, dx, precision_name(op, precision))
    return dx


def linear_wgrad(
    dy: Array, x: Array, *, precision: str = "fp32", out: Array | None = None
) -> Array:
    """Compute the gradient by the weights, ``dw = dy^T x``.

    Parameters
    ----------
    dy : array
        (..., out).
    x : array
        (..., in).
    precision, out
        See `stapes.ops.conv`.

    Returns
    -------
    array
        ``dw``, (out, in).

    Raises
    ------
    TypeError, ValueError
        See the module.
    """
    op = "linear_wgrad"
    dy, x = as_input(op, "dy", dy), as_input(op, "x", x)
    dw = output(op, "out", out, dy, (*dy.shape[-1:], *x.shape[-1:]), wide_dtype(dy))
    _core.linear_wgrad(dy, x, dw, precision_name(op, precision))
    return dw


def linear_bgrad(dy: Array, *, out: Array | None = None) -> Array:
    """Compute the gradient by the bias: the sum of ``dy`` over all but the last axis.

    Parameters
    ----------
    dy : array
        (..., out).
    out : array, optional
        See `stapes.ops.conv`.

    Returns
    -------
    array
        ``db``, (out,).

    Raises
    ------
    TypeError, ValueError
        See the module.
    """
    dy = as_input("linear_bgrad", "dy", dy)
    db = output("linear_bgrad", "out", out, dy, dy.shape[-1:], wide_dtype(dy))
    _core.linear_bgrad(dy, db)
    return db
