"""Convolution, fused with ReLU and max pooling, and transposed.

``x`` is (N, H, W, C), ``w`` (K, R, S, C / groups), ``y`` (N, P, Q, K) with
``P = floor((H + pad_top + pad_bottom - dil_h * (R - 1) - 1) / stride_h) + 1`` and likewise ``Q``.
float32 or float64 on the CPU; float32, float16 or bfloat16 on CUDA. Beside 16-bit arrays ``b``,
``dw`` and ``db`` are float32.

Common arguments:

- ``stride``, ``dilation``, ``pool``, ``output_padding``: an int or (h, w).
- ``padding``: an int, (h, w), ((top, bottom), (left, right)), "same" (output = ceil(in / stride),
  the odd pixel at the end) or "valid" (none).
- ``precision``: how float32 numbers are multiplied on CUDA. "fp32": exactly. "fp32_split": on
  tensor cores, each as two TF32 numbers, about as exact. "tf32": on tensor cores, rounded to TF32
  (11 bits). All sums are float32. Other than "fp32" it is for float32 arrays on CUDA alone.
- ``out``: an array, or a tuple of arrays or None: exact shape, dtype and device, C-contiguous,
  writable, overlapping no input; overwritten and returned.

Every function raises ``TypeError`` for no array, another dtype or device, and ``ValueError``
for shapes and values that do not fit together, naming the operator.
"""

from __future__ import annotations

from collections.abc import Sequence

from stapes import _core
from stapes.device import Array, as_input, output, outputs, wide_dtype
from stapes.ops._args import IntPair, PaddingLike, flag, integer, pair, precision_name, shape
from stapes.ops._args import padding as pads


def fused_relu(op: str, activation: object) -> bool:
    """Tell whether an operator's ``activation`` argument asks for ReLU.

    Raises
    ------
    ValueError
        If it is neither None nor "relu".
    """
    if activation is None or activation == "relu":
        return activation is not None
    raise ValueError(f'{op}: activation must be None or "relu", got {activation!r}')


def conv2d_fwd(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    activation: str | None = None,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """Convolve: ``y[n,p,q,k] = b[k] + sum_{r,s,c} x[n, p*stride + r*dil - pad, .., c] w[k,r,s,c]``.

    Parameters
    ----------
    x : array
        (N, H, W, C).
    w : array
        (K, R, S, C / groups).
    b : array, optional
        (K,).
    stride, padding, dilation, groups, precision, out
        See the module.
    activation : {None, "relu"}
        "relu" is computed in the same pass.

    Returns
    -------
    array
        ``y``, (N, P, Q, K).

    Raises
    ------
    TypeError, ValueError
        See the module.
    """
    op = "conv2d_fwd"
    x, w = as_input(op, "x", x), as_input(op, "w", w)
    b = None if b is None else as_input(op, "b", b)
    relu = fused_relu(op, activation)
    args = _geometry(op, stride, padding, dilation, groups)
    y = output(op, "out", out, x, _core.conv2d_fwd_shape(op, x.shape, w.shape, *args))
    _core.conv2d_fwd(x, w, b, y, *args, relu, precision_name(op, precision))
    return y


def conv2d_dgrad(
    dy: Array,
    w: Array,
    x_shape: Sequence[int],
    *,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `conv2d_fwd` by its input.

    Parameters
    ----------
    dy : array
        (N, P, Q, K), the gradient by the output.
    w : array
        (K, R, S, C / groups).
    x_shape : tuple of int
        (N, H, W, C).
    stride, padding, dilation, groups, precision, out
        As in the forward; see the module.

    Returns
    -------
    array
        ``dx``, (N, H, W, C).

    Raises
    ------
    TypeError, ValueError
        See the module.
    """
    op = "conv2d_dgrad"
    dy, w = as_input(op, "dy", dy), as_input(op, "w", w)
    dx = output(op, "out", out, dy, shape(op, "x_shape", x_shape, 4))
    _core.conv2d_dgrad(
        dy, w, dx, *_geometry(op, stride, padding, dilation, groups), precision_name(op, precision)
    )
    return dx


def conv2d_wgrad(
    dy: Array,
    x: Array,
    w_shape: Sequence[int],
    *,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `conv2d_fwd` by its weights.

    Parameters
    ----------
    dy : array
        (N, P, Q, K), the gradient by the output.
    x : array
        (N, H, W, C).
    w_shape : tuple of int
        (K, R, S, C / groups).
    stride, padding, dilation, groups, precision, out
        As in the forward; see the module.

    Returns
    -------
    array
        ``dw``, (K, R, S, C / groups).

    Raises
    ------
    TypeError, ValueError
        See the module.
    """
    op = "conv2d_wgrad"
    dy, x = as_input(op, "dy", dy), as_input(op, "x", x)
    dw = output(op, "out", out, dy, shape(op, "w_shape", w_shape, 4), wide_dtype(dy))
    _core.conv2d_wgrad(
        dy, x, dw, *_geometry(op, stride, padding, dilation, groups), precision_name(op, precision)
    )
    return dw


def conv2d_bgrad(dy: Array, *, out: Array | None = None) -> Array:
    """Compute the gradient of `conv2d_fwd` by its bias: the sum of ``dy`` over N, P, Q.

    Parameters
    ----------
    dy : array
        (N, P, Q, K).
    out : array, optional
        See the module.

    Returns
    -------
    array
        ``db``, (K,).

    Raises
    ------
    TypeError, ValueError
        See the module.
    """
    dy = as_input("conv2d_bgrad", "dy", dy)
    db = output("conv2d_bgrad", "out", out, dy, dy.shape[-1:], wide_dtype(dy))
    _core.conv2d_bgrad(dy, db)
    return db


def conv2d_relu_max_pool2d_fwd(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    pool: IntPair = 2,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    precision: str = "fp32",
    out: tuple[Array | None, Array | None] | None = None,
) -> tuple[Array, Array]:
    """Convolve, apply ReLU and max pooling in one pass; the full-size map is never written.

    Parameters
    ----------
    x, w, b : array
        As in `conv2d_fwd`, one group, no dilation.
    pool : int or (h, w)
        The pooling window, at most 255 places; its stride is its size, leftover rows and columns
        are dropped.
    stride, padding, precision, out
        See the module.

    Returns
    -------
    y : array
        (N, P // pool_h, Q // pool_w, K).
    argmax : array of uint8
        The same shape: ``r * pool_w + s`` of the first maximum in the window (the first NaN wins),
        or 255 for dead: the largest value before ReLU is <= 0: ``y`` is 0, no gradient passes.

    Raises
    ------
    TypeError, ValueError
        See the module.
    """
    op = "conv2d_relu_max_pool2d_fwd"
    x, w = as_input(op, "x", x), as_input(op, "w", w)
    b = None if b is None else as_input(op, "b", b)
    args = pair(op, "pool", pool), pair(op, "stride", stride), pads(op, padding)
    y_out, argmax_out = outputs(op, out, 2)
    y_shape = _core.conv2d_relu_max_pool2d_shape(x.shape, w.shape, *args)
    y = output(op, "out[0]", y_out, x, y_shape)
    argmax = output(op, "out[1]", argmax_out, x, y_shape, "uint8")
    _core.conv2d_relu_max_pool2d_fwd(x, w, b, y, argmax, *args, precision_name(op, precision))
    return y, argmax


def conv2d_relu_max_pool2d_bwd(
    dy: Array,
    argmax: Array,
    x: Array,
    w: Array,
    *,
    pool: IntPair = 2,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    need_dx: bool = True,
    precision: str = "fp32",
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array | None, Array, Array]:
    """Compute the gradients of `conv2d_relu_max_pool2d_fwd` from the pooled gradient.

    Parameters
    ----------
    dy, argmax : array
        The gradient by the pooled output, and the forward's argmax.
    x, w : array
        The forward's inputs.
    pool, stride, padding
        As in the forward.
    need_dx : bool
        False leaves ``dx`` out (None), as for a network's first layer.
    out : tuple of (dx, dw, db), optional
        See the module.

    Returns
    -------
    dx : array or None
        (N, H, W, C).
    dw : array
        (K, R, S, C).
    db : array
        (K,).

    Raises
    ------
    TypeError, ValueError
        See the module.
    """
    op = "conv2d_relu_max_pool2d_bwd"
    dy, argmax = as_input(op, "dy", dy), as_input(op, "argmax", argmax)
    x, w = as_input(op, "x", x), as_input(op, "w", w)
    dx_out, dw_out, db_out = outputs(op, out, 3)
    if not flag(op, "need_dx", need_dx) and dx_out is not None:
        raise ValueError(f"{op}: out[0] must be None with need_dx=False")
    dx = output(op, "out[0]", dx_out, x, x.shape) if need_dx else None
    dw = output(op, "out[1]", dw_out, x, w.shape, wide_dtype(x))
    db = output(op, "out[2]", db_out, x, w.shape[:1], wide_dtype(x))
    args = pair(op, "pool", pool), pair(op, "stride", stride), pads(op, padding)
    _core.conv2d_relu_max_pool2d_bwd(
        dy, argmax, x, w, dx, dw, db, *args, precision_name(op, precision)
    )
    return dx, dw, db


def _geometry(
    op: str, stride: object, padding: object, dilation: object, groups: object
) -> tuple[tuple[int, int], tuple[int, int, int, int] | None, tuple[int, int], int]:
    return (
        pair(op, "stride", stride),
        pads(op, padding),
        pair(op, "dilation", dilation),
        integer(op, "groups", groups),
    )
