"""Batch normalisation."""

from __future__ import annotations

from stapes import _core
from stapes.device import Array, as_input, in_place, output, outputs, wide_dtype
from stapes.ops._args import flag, number


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
    x = as_input(op, "x", x)
    gamma, beta = as_input(op, "gamma", gamma), as_input(op, "beta", beta)
    training = flag(op, "training", training)
    running = in_place if training else as_input
    running_mean = running(op, "running_mean", running_mean)
    running_var = running(op, "running_var", running_var)
    y, mean, rstd = outputs(op, out, 3)
    channels, wide = x.shape[-1:], wide_dtype(x)
    y = output(op, "out[0] (y)", y, x, x.shape)
    mean = output(op, "out[1] (mean)", mean, x, channels, wide)
    rstd = output(op, "out[2] (rstd)", rstd, x, channels, wide)
    momentum, eps = number(op, "momentum", momentum), number(op, "eps", eps)
    _core.batch_norm2d_fwd(
        x, gamma, beta, running_mean, running_var, training, momentum, eps, y, mean, rstd
    )
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
    dx, dgamma, dbeta = outputs(op, out, 3)
    channels, wide = x.shape[-1:], wide_dtype(x)
    dx = output(op, "out[0] (dx)", dx, x, x.shape)
    dgamma = output(op, "out[1] (dgamma)", dgamma, x, channels, wide)
    dbeta = output(op, "out[2] (dbeta)", dbeta, x, channels, wide)
    training = flag(op, "training", training)
    _core.batch_norm2d_bwd(dy, x, gamma, mean, rstd, training, dx, dgamma, dbeta)
    return dx, dgamma, dbeta
