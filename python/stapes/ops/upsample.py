"""Upsampling of images by whole factors."""

from __future__ import annotations

from stapes import _core
from stapes.device import Array, as_input, output
from stapes.ops import _args
from stapes.ops._args import IntPair


def upsample2d_fwd(x: Array, scale: IntPair, *, out: Array | None = None) -> Array:
    """Repeat each pixel ``scale`` times along H and W (nearest neighbour).

    Parameters
    ----------
    x : array
        (N,H,W,C), float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    scale : int or (int, int)
        Factors (h, w), at least 1.
    out : array, optional
        Overwritten and returned.

    Returns
    -------
    array
        ``y`` (N, H * scale_h, W * scale_w, C), dtype of ``x``.

    Raises
    ------
    TypeError
        If an argument is no array or no integer, or of another dtype or device.
    ValueError
        If ``x`` has not four dimensions or no pixels, ``scale`` is below 1, or ``out`` has another
        shape, is read-only or overlaps ``x``.
    """
    op = "upsample2d_fwd"
    x = as_input(op, "x", x)
    factors = _args.pair(op, "scale", scale)
    y = output(op, "out", out, x, _core.upsample2d_shape(op, x.shape, factors))
    _core.upsample2d_fwd(x, y, factors)
    return y


def upsample2d_bwd(dy: Array, scale: IntPair, *, out: Array | None = None) -> Array:
    """Sum the gradient over the copies of each pixel.

    Parameters
    ----------
    dy : array
        (N,P,Q,C), gradient of the output; P and Q are multiples of ``scale``.
    scale : int or (int, int)
        As in `upsample2d_fwd`.
    out : array, optional
        Overwritten and returned.

    Returns
    -------
    array
        ``dx`` (N, P / scale_h, Q / scale_w, C), dtype of ``dy``.

    Raises
    ------
    TypeError, ValueError
        As `upsample2d_fwd`.
    """
    op = "upsample2d_bwd"
    dy = as_input(op, "dy", dy)
    factors = _args.pair(op, "scale", scale)
    dx = output(op, "out", out, dy, _core.downsample2d_shape(op, dy.shape, factors))
    _core.upsample2d_bwd(dy, dx, factors)
    return dx
