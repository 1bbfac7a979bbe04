"""Batch normalisation, ReLU and the convolution behind them in one pass."""

from __future__ import annotations

from stapes import _core
from stapes.device import Array, as_input, output, outputs, wide_dtype
from stapes.ops._args import IntPair, PaddingLike, flag, number, precision_name
from stapes.ops.conv import _geometry
from stapes.ops.norm import _channels, _gradients


def batch_norm2d_relu_conv2d_fwd(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    w: Array,
    b: Array | None = None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    precision: str = "fp32",
    out: tuple[Array | None, Array | None] | None = None,
) -> tuple[Array, Array]:
    """Normalise, apply ReLU and convolve: the map between is not kept.

    Where the convolution is 1x1 or depthwise, that map is never written at all (CPU); else it lies
    in scratch memory for the time of the call.

    Parameters
    ----------
    x, gamma, beta, running_mean, running_var, training, momentum, eps
        As in `batch_norm2d_fwd`.
    w, b, stride, padding, dilation, groups, precision
        As in `conv2d_fwd`; padding is of what ReLU gives, with zeros.
    out : tuple of array, optional
        ``(y, norm)``, overwritten and returned; None entries are allocated.

    Returns
    -------
    y : array
        (N, P, Q, K), dtype of ``x``.
    norm : array
        (4, C), dtype of ``gamma``: mean, scale, shift and ``rstd``. The convolution's input is
        ``max(0, (x - mean) * scale + shift)``.

    Raises
    ------
    TypeError, ValueError
        As `batch_norm2d_fwd` and `conv2d_fwd`.
    """
    op = "batch_norm2d_relu_conv2d_fwd"
    x, training = as_input(op, "x", x), flag(op, "training", training)
    channels = _channels(op, gamma, beta, running_mean, running_var, training)
    w, b = as_input(op, "w", w), None if b is None else as_input(op, "b", b)
    window = _geometry(op, stride, padding, dilation, groups)
    y, norm = outputs(op, out, 2)
    y = output(op, "out[0] (y)", y, x, _core.conv2d_fwd_shape(op, x.shape, w.shape, *window))
    norm = output(op, "out[1] (norm)", norm, x, (4, x.shape[-1]), wide_dtype(x))
    settings = training, number(op, "momentum", momentum), number(op, "eps", eps)
    strides, pads, dilations, n_groups = window
    mode = precision_name(op, precision)
    _core.batch_norm2d_relu_conv2d_fwd(
        x, *channels, w, b, *settings, y, norm, strides, pads, dilations, n_groups, mode
    )
    return y, norm


def batch_norm2d_relu_conv2d_bwd(
    dy: Array,
    x: Array,
    gamma: Array,
    norm: Array,
    w: Array,
    *,
    training: bool = True,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    need_db: bool = True,
    precision: str = "fp32",
    out: tuple[Array | None, ...] | None = None,
) -> tuple[Array, Array, Array, Array, Array | None]:
    """Compute the gradients of `batch_norm2d_relu_conv2d_fwd`.

    Parameters
    ----------
    dy : array
        (N, P, Q, K), the gradient by the output.
    x, gamma, w, training, stride, padding, dilation, groups, precision
        As in the forward.
    norm : array
        (4, C), which the forward returned.
    need_db : bool
        False leaves ``db`` out (None), for a convolution without bias.
    out : tuple of array, optional
        ``(dx, dgamma, dbeta, dw, db)``, overwritten and returned; None entries are allocated.

    Returns
    -------
    dx : array
        Shape and dtype of ``x``.
    dgamma, dbeta : array
        (C,), dtype of ``gamma``.
    dw : array
        Shape of ``w``, dtype of ``gamma``.
    db : array or None
        (K,), dtype of ``gamma``.

    Raises
    ------
    TypeError, ValueError
        As `batch_norm2d_bwd` and `conv2d_wgrad`.
    """
    op = "batch_norm2d_relu_conv2d_bwd"
    dy, x, gamma = as_input(op, "dy", dy), as_input(op, "x", x), as_input(op, "gamma", gamma)
    norm, w = as_input(op, "norm", norm), as_input(op, "w", w)
    window = _geometry(op, stride, padding, dilation, groups)
    *of_norm, dw, db = outputs(op, out, 5)
    if not flag(op, "need_db", need_db) and db is not None:
        raise ValueError(f"{op}: out[4] must be None with need_db=False")
    dx, dgamma, dbeta = _gradients(op, x, tuple(of_norm))
    dw = output(op, "out[3] (dw)", dw, x, w.shape, wide_dtype(x))
    db = output(op, "out[4] (db)", db, x, w.shape[:1], wide_dtype(x)) if need_db else None
    training, precision = flag(op, "training", training), precision_name(op, precision)
    _core.batch_norm2d_relu_conv2d_bwd(
        dy, x, gamma, norm, w, training, dx, dgamma, dbeta, dw, db, *window, precision
    )
    return dx, dgamma, dbeta, dw, db
