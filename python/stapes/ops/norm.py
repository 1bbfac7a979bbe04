"""Batch normalisation."""

from __future__ import annotations

from stapes import _core
from stapes.device import Array, as_input, in_place, output, outputs, wide_dtype
from stapes.ops._args import IntPair, flag, number, pair


def batch_norm2d_fwd(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    out: tuple[Array | None, ...] | None = None,
) -> tuple[Array, Array, Array]:
    """Compute ``y = (x - mean) / sqrt(var + eps) * gamma + beta`` for each channel.

    In training, ``mean`` and ``var`` (biased) are those of the batch, and the running values become
    ``(1 - momentum) * running + momentum * batch``, with the unbiased variance. Otherwise the
    running values are used and stay as they are.

    Parameters
    ----------
    x : array
        (N, H, W, C), float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    gamma, beta : array
        Scale and shift, (C,): float64 with a float64 ``x``, else float32.
    running_mean, running_var : array
        (C,), dtype of ``gamma``; in training C-contiguous and writable, updated in place.
    training : bool
        Use the statistics of the batch.
    momentum : float
        Share of the batch in the running values, in [0, 1].
    eps : float
        Added to the variance, at least 0.
    out : tuple of array, optional
        ``(y, mean, rstd)``, overwritten and returned; None entries are allocated.

    Returns
    -------
    y : array
        Shape and dtype of ``x``.
    mean, rstd : array
        The mean that was used and ``1 / sqrt(var + eps)``, (C,), dtype of ``gamma``.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device.
    ValueError
        If shapes do not fit, ``momentum`` or ``eps`` is out of range, an output overlaps another
        array or is read-only, or ``training`` with ``N * H * W`` below 2: one value has no
        variance (in evaluation an empty batch gives an empty ``y``).

    Notes
    -----
    S. Ioffe, C. Szegedy, "Batch Normalization", 2015. Statistics are computed in double.
    """
    op = "batch_norm2d_fwd"
    x, training = as_input(op, "x", x), flag(op, "training", training)
    channels = _channels(op, gamma, beta, running_mean, running_var, training)
    y, *statistics = outputs(op, out, 3)
    y = output(op, "out[0] (y)", y, x, x.shape)
    mean, rstd = _per_channel(op, x, 1, {"mean": statistics[0], "rstd": statistics[1]})
    settings = training, number(op, "momentum", momentum), number(op, "eps", eps)
    _core.batch_norm2d_fwd(x, *channels, *settings, y, mean, rstd)
    return y, mean, rstd


def batch_norm2d_bwd(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    *,
    training: bool = True,
    out: tuple[Array | None, ...] | None = None,
) -> tuple[Array, Array, Array]:
    """Compute the gradients of `batch_norm2d_fwd`.

    Parameters
    ----------
    dy, x : array
        Gradient of ``y``, and the input of the forward function: (N, H, W, C), one dtype.
    gamma, mean, rstd : array
        (C,): the scale, and what the forward function returned.
    training : bool
        Whether ``mean`` and ``rstd`` are the batch's own, so that they depend on ``x``.
    out : tuple of array, optional
        ``(dx, dgamma, dbeta)``, overwritten and returned; None entries are allocated.

    Returns
    -------
    dx : array
        Shape and dtype of ``x``.
    dgamma, dbeta : array
        (C,), dtype of ``gamma``; 0 for an empty batch.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device.
    ValueError
        If shapes do not fit, or an output overlaps another array or is read-only.
    """
    op = "batch_norm2d_bwd"
    dy, x = as_input(op, "dy", dy), as_input(op, "x", x)
    gamma = as_input(op, "gamma", gamma)
    mean, rstd = as_input(op, "mean", mean), as_input(op, "rstd", rstd)
    dx, dgamma, dbeta = _gradients(op, x, out)
    training = flag(op, "training", training)
    _core.batch_norm2d_bwd(dy, x, gamma, mean, rstd, training, dx, dgamma, dbeta)
    return dx, dgamma, dbeta


def batch_norm2d_relu_max_pool2d_fwd(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    pool: IntPair = 2,
    momentum: float = 0.1,
    eps: float = 1e-5,
    out: tuple[Array | None, ...] | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Normalise, apply ReLU and max pooling in one pass; the full-size map is never written.

    Parameters
    ----------
    x, gamma, beta, running_mean, running_var, training, momentum, eps
        As in `batch_norm2d_fwd`.
    pool : int or (h, w)
        The pooling window, at most 255 places; its stride is its size, leftover rows and columns
        are dropped. 1: ReLU alone.
    out : tuple of array, optional
        ``(y, argmax, mean, rstd)``, overwritten and returned; None entries are allocated.

    Returns
    -------
    y : array
        (N, H // pool_h, W // pool_w, C), dtype of ``x``.
    argmax : array of uint8
        The same shape: ``r * pool_w + s`` of the first maximum in the window (the first NaN wins),
        or 255 for dead: the largest value before ReLU is <= 0: ``y`` is 0, no gradient passes.
    mean, rstd : array
        As of `batch_norm2d_fwd`.

    Raises
    ------
    TypeError, ValueError
        As `batch_norm2d_fwd`, or if ``pool`` is below 1, larger than ``x`` or of too many places.
    """
    op = "batch_norm2d_relu_max_pool2d_fwd"
    x, training = as_input(op, "x", x), flag(op, "training", training)
    channels = _channels(op, gamma, beta, running_mean, running_var, training)
    window = pair(op, "pool", pool)
    y, argmax, *statistics = outputs(op, out, 4)
    pooled = _core.batch_norm2d_relu_max_pool2d_shape(x.shape, window)
    y = output(op, "out[0] (y)", y, x, pooled)
    argmax = output(op, "out[1] (argmax)", argmax, x, pooled, "uint8")
    mean, rstd = _per_channel(op, x, 2, {"mean": statistics[0], "rstd": statistics[1]})
    settings = training, number(op, "momentum", momentum), number(op, "eps", eps)
    _core.batch_norm2d_relu_max_pool2d_fwd(x, *channels, window, *settings, y, argmax, mean, rstd)
    return y, argmax, mean, rstd


def batch_norm2d_relu_max_pool2d_bwd(
    dy: Array,
    argmax: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    *,
    training: bool = True,
    pool: IntPair = 2,
    out: tuple[Array | None, ...] | None = None,
) -> tuple[Array, Array, Array]:
    """Compute the gradients of `batch_norm2d_relu_max_pool2d_fwd` from the pooled gradient.

    Parameters
    ----------
    dy, argmax : array
        The gradient by the pooled output, and the forward's argmax.
    x, gamma, mean, rstd, training
        As in `batch_norm2d_bwd`.
    pool : int or (h, w)
        As in the forward.
    out : tuple of array, optional
        ``(dx, dgamma, dbeta)``, overwritten and returned; None entries are allocated.

    Returns
    -------
    dx : array
        Shape and dtype of ``x``.
    dgamma, dbeta : array
        (C,), dtype of ``gamma``; 0 for an empty batch.

    Raises
    ------
    TypeError, ValueError
        As `batch_norm2d_bwd`, and ``ValueError`` if, on the CPU, ``argmax`` holds no place of the
        window; CUDA takes such a place for dead.
    """
    op = "batch_norm2d_relu_max_pool2d_bwd"
    dy, argmax = as_input(op, "dy", dy), as_input(op, "argmax", argmax)
    x, gamma = as_input(op, "x", x), as_input(op, "gamma", gamma)
    mean, rstd = as_input(op, "mean", mean), as_input(op, "rstd", rstd)
    window, training = pair(op, "pool", pool), flag(op, "training", training)
    dx, dgamma, dbeta = _gradients(op, x, out)
    _core.batch_norm2d_relu_max_pool2d_bwd(
        dy, argmax, x, gamma, mean, rstd, window, training, dx, dgamma, dbeta
    )
    return dx, dgamma, dbeta


def batch_norm2d_relu_global_avg_pool2d_fwd(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    out: tuple[Array | None, ...] | None = None,
) -> tuple[Array, Array, Array]:
    """Normalise, apply ReLU and take the mean over each image; the full-size map is never written.

    Parameters
    ----------
    x, gamma, beta, running_mean, running_var, training, momentum, eps
        As in `batch_norm2d_fwd`.
    out : tuple of array, optional
        ``(y, norm, alive)``, overwritten and returned; None entries are allocated.

    Returns
    -------
    y : array
        (N, C), dtype of ``x``.
    norm : array
        (4, C), dtype of ``gamma``: ``mean``, ``scale``, ``shift`` and ``rstd``, with which
        ``z = (x - mean) * scale + shift`` is what ReLU gets.
    alive : array
        (2, N, C), dtype of ``gamma``: the share of an image's pixels that ReLU lets through (``z``
        above 0, or NaN), and the mean of ``x - mean`` over these, 0 where there are none.

    Raises
    ------
    TypeError, ValueError
        As `batch_norm2d_fwd`, or if an image has no pixels.
    """
    op = "batch_norm2d_relu_global_avg_pool2d_fwd"
    x, training = as_input(op, "x", x), flag(op, "training", training)
    channels = _channels(op, gamma, beta, running_mean, running_var, training)
    y, norm, alive = outputs(op, out, 3)
    pooled, dtype = _core.global_pool2d_shape(op, x.shape), wide_dtype(x)
    y = output(op, "out[0] (y)", y, x, pooled)
    norm = output(op, "out[1] (norm)", norm, x, (4, pooled[1]), dtype)
    alive = output(op, "out[2] (alive)", alive, x, (2, *pooled), dtype)
    settings = training, number(op, "momentum", momentum), number(op, "eps", eps)
    _core.batch_norm2d_relu_global_avg_pool2d_fwd(x, *channels, *settings, y, norm, alive)
    return y, norm, alive


def batch_norm2d_relu_global_avg_pool2d_bwd(
    dy: Array,
    x: Array,
    gamma: Array,
    norm: Array,
    alive: Array,
    *,
    training: bool = True,
    out: tuple[Array | None, ...] | None = None,
) -> tuple[Array, Array, Array]:
    """Compute the gradients of `batch_norm2d_relu_global_avg_pool2d_fwd` in one pass over ``x``.

    Parameters
    ----------
    dy : array
        The gradient by the output, (N, C).
    x, gamma, training
        As in `batch_norm2d_bwd`.
    norm, alive : array
        What the forward returned.
    out : tuple of array, optional
        ``(dx, dgamma, dbeta)``, overwritten and returned; None entries are allocated.

    Returns
    -------
    dx : array
        Shape and dtype of ``x``.
    dgamma, dbeta : array
        (C,), dtype of ``gamma``; 0 for an empty batch.

    Raises
    ------
    TypeError, ValueError
        As `batch_norm2d_bwd`, and as the forward.
    """
    op = "batch_norm2d_relu_global_avg_pool2d_bwd"
    dy, x, gamma = as_input(op, "dy", dy), as_input(op, "x", x), as_input(op, "gamma", gamma)
    norm, alive = as_input(op, "norm", norm), as_input(op, "alive", alive)
    training = flag(op, "training", training)
    dx, dgamma, dbeta = _gradients(op, x, out)
    _core.batch_norm2d_relu_global_avg_pool2d_bwd(
        dy, x, gamma, norm, alive, training, dx, dgamma, dbeta
    )
    return dx, dgamma, dbeta


def _channels(
    op: str, gamma: Array, beta: Array, running_mean: Array, running_var: Array, training: bool
) -> tuple[Array, Array, Array, Array]:
    """Return the forward's inputs per channel; the running values are written in training."""
    running = in_place if training else as_input
    return (
        as_input(op, "gamma", gamma),
        as_input(op, "beta", beta),
        running(op, "running_mean", running_mean),
        running(op, "running_var", running_var),
    )


def _per_channel(
    op: str, x: Array, first: int, given: dict[str, Array | None]
) -> tuple[Array, ...]:
    """Return outputs (C,) by name, of which the first stands at this place of ``out``."""
    shape, dtype = x.shape[-1:], wide_dtype(x)
    return tuple(
        output(op, f"out[{i}] ({name})", array, x, shape, dtype)
        for i, (name, array) in enumerate(given.items(), first)
    )


def _gradients(op: str, x: Array, out: tuple[Array | None, ...] | None) -> tuple[Array, ...]:
    dx, dgamma, dbeta = outputs(op, out, 3)
    dx = output(op, "out[0] (dx)", dx, x, x.shape)
    return dx, *_per_channel(op, x, 1, {"dgamma": dgamma, "dbeta": dbeta})
