"""Transposed convolution: the gradient of a convolution used as a layer.

`stapes.ops.conv` tells the arguments.

``x`` is (N, P, Q, C_in), ``w`` (C_in, R, S, C_out), ``b`` (C_out,), ``y`` (N, H, W, C_out) with
``H = (P - 1) * stride_h + R - pad_top - pad_bottom + output_padding_h``, or ``P * stride_h`` for
padding "same". ``output_padding`` must be less than ``stride``.
"""

from __future__ import annotations

from collections.abc import Sequence

from stapes import _core
from stapes.device import Array, as_input, output, wide_dtype
from stapes.ops._args import IntPair, PaddingLike, pair, precision_name, shape
from stapes.ops._args import padding as pads


def conv_transpose2d_fwd(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    output_padding: IntPair = 0,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """Convolve transposed, as PyTorch's ``conv_transpose2d`` does.

    Parameters
    ----------
    x, w, b : array
        See the module.
    stride, padding, output_padding, precision, out
        See the module.

    Returns
    -------
    array
        ``y``, (N, H, W, C_out).

    Raises
    ------
    TypeError, ValueError
        As the convolutions.
    """
    op = "conv_transpose2d_fwd"
    x, w = as_input(op, "x", x), as_input(op, "w", w)
    b = None if b is None else as_input(op, "b", b)
    args = _geometry(op, stride, padding, output_padding)
    y = output(op, "out", out, x, _core.conv_transpose2d_fwd_shape(x.shape, w.shape, *args))
    _core.conv_transpose2d_fwd(x, w, b, y, *args, precision_name(op, precision))
    return y


def conv_transpose2d_dgrad(
    dy: Array,
    w: Array,
    x_shape: Sequence[int],
    *,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    output_padding: IntPair = 0,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `conv_transpose2d_fwd` by its input.

    Parameters
    ----------
    dy : array
        (N, H, W, C_out).
    w : array
        (C_in, R, S, C_out).
    x_shape : tuple of int
        (N, P, Q, C_in).
    stride, padding, output_padding, precision, out
        As in the forward.

    Returns
    -------
    array
        ``dx``, (N, P, Q, C_in).

    Raises
    ------
    TypeError, ValueError
        As the convolutions.
    """
    op = "conv_transpose2d_dgrad"
    dy, w = as_input(op, "dy", dy), as_input(op, "w", w)
    dx = output(op, "out", out, dy, shape(op, "x_shape", x_shape, 4))
    _core.conv_transpose2d_dgrad(
        dy, w, dx, *_geometry(op, stride, padding, output_padding), precision_name(op, precision)
    )
    return dx


def conv_transpose2d_wgrad(
    dy: Array,
    x: Array,
    w_shape: Sequence[int],
    *,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    output_padding: IntPair = 0,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `conv_transpose2d_fwd` by its weights.

    Parameters
    ----------
    dy : array
        (N, H, W, C_out).
    x : array
        (N, P, Q, C_in).
    w_shape : tuple of int
        (C_in, R, S, C_out).
    stride, padding, output_padding, precision, out
        As in the forward.

    Returns
    -------
    array
        ``dw``, (C_in, R, S, C_out).

    Raises
    ------
    TypeError, ValueError
        As the convolutions.
    """
    op = "conv_transpose2d_wgrad"
    dy, x = as_input(op, "dy", dy), as_input(op, "x", x)
    dw = output(op, "out", out, dy, shape(op, "w_shape", w_shape, 4), wide_dtype(dy))
    _core.conv_transpose2d_wgrad(
        dy, x, dw, *_geometry(op, stride, padding, output_padding), precision_name(op, precision)
    )
    return dw


def _geometry(
    op: str, stride: object, padding: object, output_padding: object
) -> tuple[tuple[int, int], tuple[int, int, int, int] | None, tuple[int, int]]:
    return (
        pair(op, "stride", stride),
        pads(op, padding),
        pair(op, "output_padding", output_padding),
    )
