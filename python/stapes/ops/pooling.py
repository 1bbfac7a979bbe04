"""Pooling over windows of (N,H,W,C): maximum, average, and the average of whole images."""

from __future__ import annotations

from typing import NamedTuple

from stapes import _core
from stapes.device import Array, as_input, output, outputs
from stapes.ops import _args
from stapes.ops._args import IntPair, PaddingLike


class _Window(NamedTuple):
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] | None


def _window(op: str, kernel: IntPair, stride: IntPair | None, padding: PaddingLike) -> _Window:
    size = _args.pair(op, "kernel", kernel)
    step = size if stride is None else _args.pair(op, "stride", stride)
    return _Window(size, step, _args.padding(op, padding))


def max_pool2d_fwd(
    x: Array,
    kernel: IntPair,
    *,
    stride: IntPair | None = None,
    padding: PaddingLike = 0,
    out: tuple[Array | None, Array | None] | None = None,
) -> tuple[Array, Array]:
    """Take the maximum of each window, and its place.

    Parameters
    ----------
    x : array
        (N,H,W,C), float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    kernel : int or (int, int)
        Size (h, w) of the window.
    stride : int or (int, int), optional
        Step of the window; its size by default.
    padding : int, (h, w), ((top, bottom), (left, right)), "same" or "valid"
        At most ``kernel // 2`` on each side; padding is never the maximum.
    out : (array or None, array or None), optional
        ``(y, argmax)``, overwritten and returned.

    Returns
    -------
    y : array
        (N,P,Q,C), dtype of ``x``. The first NaN of a window wins.
    argmax : array
        (N,P,Q,C), ``r * kernel_w + s`` of the first maximum in scan order: uint8 where the window
        has at most 255 places, else int32.

    Raises
    ------
    TypeError
        If an argument is no array or no integer, or of another dtype or device.
    ValueError
        If ``x`` has not four dimensions, a size, stride or padding is out of range, the output
        would be empty, or ``out`` has another shape, is read-only or overlaps ``x``.
    """
    op = "max_pool2d_fwd"
    x = as_input(op, "x", x)
    window = _window(op, kernel, stride, padding)
    y, argmax = outputs(op, out, 2)
    shape = _core.pool2d_shape(op, x.shape, *window)
    y = output(op, "out[0]", y, x, shape)
    argmax = output(op, "out[1]", argmax, x, shape, _core.argmax_dtype(window.kernel))
    _core.max_pool2d_fwd(x, y, argmax, *window)
    return y, argmax


def max_pool2d_bwd(
    dy: Array,
    argmax: Array,
    x_shape: tuple[int, int, int, int],
    kernel: IntPair,
    *,
    stride: IntPair | None = None,
    padding: PaddingLike = 0,
    out: Array | None = None,
) -> Array:
    """Bring each gradient to the place of its window's maximum; overlapping windows add up.

    Parameters
    ----------
    dy, argmax : array
        (N,P,Q,C): gradient of the output, and what `max_pool2d_fwd` returned. In uint8, 255 passes
        no gradient.
    x_shape : (int, int, int, int)
        Shape (N,H,W,C) of the input.
    kernel, stride, padding
        As in `max_pool2d_fwd`.
    out : array, optional
        Overwritten and returned.

    Returns
    -------
    array
        ``dx`` (N,H,W,C), dtype of ``dy``.

    Raises
    ------
    TypeError
        As `max_pool2d_fwd`.
    ValueError
        As `max_pool2d_fwd`; on the CPU also if ``argmax`` holds a place outside of its window or
        in the padding.
    """
    op = "max_pool2d_bwd"
    dy, argmax = as_input(op, "dy", dy), as_input(op, "argmax", argmax)
    window = _window(op, kernel, stride, padding)
    shape = _args.shape(op, "x_shape", x_shape, 4)
    dx = output(op, "out", out, dy, shape)
    _core.max_pool2d_bwd(dy, argmax, dx, shape, *window)
    return dx


def avg_pool2d_fwd(
    x: Array,
    kernel: IntPair,
    *,
    stride: IntPair | None = None,
    padding: PaddingLike = 0,
    count_include_pad: bool = True,
    out: Array | None = None,
) -> Array:
    """Take the mean of each window; padding is zero.

    Parameters
    ----------
    x : array
        (N,H,W,C), float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    kernel, stride : int or (int, int)
        Size (h, w) of the window, and its step: its size by default.
    padding : int, (h, w), ((top, bottom), (left, right)), "same" or "valid"
        Zeros around the image.
    count_include_pad : bool
        Divide by the places of the window; if False, by those in the image (a window with none
        gives 0).
    out : array, optional
        Overwritten and returned.

    Returns
    -------
    array
        ``y`` (N,P,Q,C), dtype of ``x``.

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d_fwd`.
    """
    op = "avg_pool2d_fwd"
    x = as_input(op, "x", x)
    window = _window(op, kernel, stride, padding)
    include = _args.flag(op, "count_include_pad", count_include_pad)
    y = output(op, "out", out, x, _core.pool2d_shape(op, x.shape, *window))
    _core.avg_pool2d_fwd(x, y, *window, include)
    return y


def avg_pool2d_bwd(
    dy: Array,
    x_shape: tuple[int, int, int, int],
    kernel: IntPair,
    *,
    stride: IntPair | None = None,
    padding: PaddingLike = 0,
    count_include_pad: bool = True,
    out: Array | None = None,
) -> Array:
    """Spread each gradient evenly over its window; overlapping windows add up.

    Parameters
    ----------
    dy : array
        (N,P,Q,C), gradient of the output.
    x_shape : (int, int, int, int)
        Shape (N,H,W,C) of the input.
    kernel, stride, padding, count_include_pad
        As in `avg_pool2d_fwd`.
    out : array, optional
        Overwritten and returned.

    Returns
    -------
    array
        ``dx`` (N,H,W,C), dtype of ``dy``.

    Raises
    ------
    TypeError, ValueError
        As `avg_pool2d_fwd`.
    """
    op = "avg_pool2d_bwd"
    dy = as_input(op, "dy", dy)
    window = _window(op, kernel, stride, padding)
    include = _args.flag(op, "count_include_pad", count_include_pad)
    shape = _args.shape(op, "x_shape", x_shape, 4)
    dx = output(op, "out", out, dy, shape)
    _core.avg_pool2d_bwd(dy, dx, shape, *window, include)
    return dx


def global_avg_pool2d_fwd(x: Array, *, out: Array | None = None) -> Array:
    """Take the mean of each channel over the whole image.

    Parameters
    ----------
    x : array
        (N,H,W,C), float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    out : array, optional
        Overwritten and returned.

    Returns
    -------
    array
        ``y`` (N,C), dtype of ``x``.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device.
    ValueError
        If ``x`` has not four dimensions or no pixels, or ``out`` has another shape, is read-only
        or overlaps ``x``.
    """
    op = "global_avg_pool2d_fwd"
    x = as_input(op, "x", x)
    y = output(op, "out", out, x, _core.global_pool2d_shape(op, x.shape))
    _core.global_avg_pool2d_fwd(x, y)
    return y


def global_avg_pool2d_bwd(
    dy: Array, x_shape: tuple[int, int, int, int], *, out: Array | None = None
) -> Array:
    """Spread each gradient evenly over its image: ``dx = dy / (H * W)``.

    Parameters
    ----------
    dy : array
        (N,C), gradient of the output.
    x_shape : (int, int, int, int)
        Shape (N,H,W,C) of the input.
    out : array, optional
        Overwritten and returned.

    Returns
    -------
    array
        ``dx`` (N,H,W,C), dtype of ``dy``.

    Raises
    ------
    TypeError, ValueError
        As `global_avg_pool2d_fwd`.
    """
    op = "global_avg_pool2d_bwd"
    dy = as_input(op, "dy", dy)
    shape = _args.shape(op, "x_shape", x_shape, 4)
    dx = output(op, "out", out, dy, shape)
    _core.global_avg_pool2d_bwd(dy, dx, shape)
    return dx
