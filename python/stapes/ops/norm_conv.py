"""Batch normalisation and ReLU in one pass with the convolution behind or before them."""

from __future__ import annotations

from stapes import _core
from stapes.device import Array, as_input, output, outputs, wide_dtype
from stapes.ops._args import IntPair, PaddingLike, flag, number, pair, precision_name
from stapes.ops._args import padding as pads
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

    Where the convolution is 1x1 or depthwise with stride 1, that map is not written at all (CPU);
    else it lies in scratch memory for the time of the call.

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


def conv2d_batch_norm2d_relu_max_pool2d_fwd(
    x: Array,
    w: Array,
    b: Array | None,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    pool: IntPair = 2,
    momentum: float = 0.1,
    eps: float = 1e-5,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    precision: str = "fp32",
    out: tuple[Array | None, ...] | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Convolve, normalise, apply ReLU and max pooling: the first block of a network.

    With up to 32 numbers in a patch (R * S * C) and at least 16 times as many channels of the
    output as of ``x``, in float32, the CPU takes the statistics from the sums of what the
    convolution reads, so that its output is never written; else that lies in scratch memory for the
    time of the call.

    Parameters
    ----------
    x, w, b, stride, padding, precision
        As in `conv2d_fwd`, one group, no dilation; ``b`` may be None.
    gamma, beta, running_mean, running_var, training, momentum, eps
        As in `batch_norm2d_fwd`, for the K channels of the convolution's output.
    pool : int or (h, w)
        As in `batch_norm2d_relu_max_pool2d_fwd`.
    out : tuple of array, optional
        ``(y, argmax, mean, rstd)``, overwritten and returned; None entries are allocated.

    Returns
    -------
    y : array
        (N, P // pool_h, Q // pool_w, K), dtype of ``x``.
    argmax : array of uint8
        As of `batch_norm2d_relu_max_pool2d_fwd`.
    mean, rstd : array
        (K,), dtype of ``gamma``: as of `batch_norm2d_fwd`.

    Raises
    ------
    TypeError, ValueError
        As the functions named above.
    """
    op = "conv2d_batch_norm2d_relu_max_pool2d_fwd"
    x, w = as_input(op, "x", x), as_input(op, "w", w)
    b, training = None if b is None else as_input(op, "b", b), flag(op, "training", training)
    channels = _channels(op, gamma, beta, running_mean, running_var, training)
    window = pair(op, "pool", pool), pair(op, "stride", stride), pads(op, padding)
    y, argmax, mean, rstd = outputs(op, out, 4)
    shape = _core.conv2d_batch_norm2d_relu_max_pool2d_shape(x.shape, w.shape, *window)
    y = output(op, "out[0] (y)", y, x, shape)
    argmax = output(op, "out[1] (argmax)", argmax, x, shape, "uint8")
    mean = output(op, "out[2] (mean)", mean, x, w.shape[:1], wide_dtype(x))
    rstd = output(op, "out[3] (rstd)", rstd, x, w.shape[:1], wide_dtype(x))
    settings = training, number(op, "momentum", momentum), number(op, "eps", eps)
    results = y, argmax, mean, rstd
    _core.conv2d_batch_norm2d_relu_max_pool2d_fwd(
        x, w, b, *channels, *settings, *results, *window, precision_name(op, precision)
    )
    return results


def conv2d_batch_norm2d_relu_max_pool2d_bwd(
    dy: Array,
    argmax: Array,
    x: Array,
    w: Array,
    b: Array | None,
    gamma: Array,
    mean: Array,
    rstd: Array,
    *,
    training: bool = True,
    pool: IntPair = 2,
    stride: IntPair = 1,
    padding: PaddingLike = 0,
    precision: str = "fp32",
    out: tuple[Array | None, ...] | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """Compute the gradients of `conv2d_batch_norm2d_relu_max_pool2d_fwd`; there is none of ``x``.

    Parameters
    ----------
    dy, argmax : array
        The gradient by the pooled output, and the forward's argmax.
    x, w, b, gamma, training, pool, stride, padding, precision
        As in the forward.
    mean, rstd : array
        What the forward returned.
    out : tuple of array, optional
        ``(dw, dgamma, dbeta, db)``, overwritten and returned; None entries are allocated.

    Returns
    -------
    dw : array
        (K, R, S, C), dtype of ``gamma``.
    dgamma, dbeta : array
        (K,), dtype of ``gamma``.
    db : array or None
        (K,), dtype of ``gamma``; in training 0 but for rounding. None without ``b``.

    Raises
    ------
    TypeError, ValueError
        As the forward, and ``ValueError`` if, on the CPU, ``argmax`` holds no place of the window;
        CUDA takes such a place for dead.
    """
    op = "conv2d_batch_norm2d_relu_max_pool2d_bwd"
    dy, argmax = as_input(op, "dy", dy), as_input(op, "argmax", argmax)
    x, w, gamma = as_input(op, "x", x), as_input(op, "w", w), as_input(op, "gamma", gamma)
    b = None if b is None else as_input(op, "b", b)
    mean, rstd = as_input(op, "mean", mean), as_input(op, "rstd", rstd)
    window = pair(op, "pool", pool), pair(op, "stride", stride), pads(op, padding)
    dw, dgamma, dbeta, db = outputs(op, out, 4)
    if b is None and db is not None:
        raise ValueError(f"{op}: out[3] must be None without b")
    dtype = wide_dtype(x)
    dw = output(op, "out[0] (dw)", dw, x, w.shape, dtype)
    dgamma = output(op, "out[1] (dgamma)", dgamma, x, w.shape[:1], dtype)
    dbeta = output(op, "out[2] (dbeta)", dbeta, x, w.shape[:1], dtype)
    db = None if b is None else output(op, "out[3] (db)", db, x, w.shape[:1], dtype)
    mode, training = precision_name(op, precision), flag(op, "training", training)
    _core.conv2d_batch_norm2d_relu_max_pool2d_bwd(
        dy, argmax, x, w, b, gamma, mean, rstd, training, dw, dgamma, dbeta, db, *window, mode
    )
    return dw, dgamma, dbeta, db
