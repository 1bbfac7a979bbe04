"""Losses: each forward function returns a 0-d array."""

from __future__ import annotations

from typing import Any

import numpy as np

from stapes import _core
from stapes.device import Array, as_input, output, outputs, wide_dtype
from stapes.ops._args import integer, number, scalar


def cross_entropy_fwd(
    logits: Array,
    target: Array,
    *,
    weight: Array | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    grad_scale: float | Array = 1.0,
    out: tuple[Array | None, ...] | None = None,
) -> tuple[Array, Array]:
    """Compute the mean cross-entropy of ``softmax(logits)``, and in the same pass its gradient.

    For class ids the loss is ``sum_i -weight[t_i] * log p_i[t_i] / sum_i weight[t_i]`` over the
    targets not ignored, for probabilities ``sum_ic -weight[c] * target_ic * log p_ic / N``. Label
    smoothing s mixes the target with the uniform distribution, ``(1 - s) * target + s / classes``,
    before the weights are applied.

    Parameters
    ----------
    logits : array
        (N, classes), float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    target : array
        Class ids (N,), int32 or int64; or probabilities (N, classes) of any real dtype (bool
        too), converted to the dtype of ``logits``. They are used as they are: rows need not sum
        to 1.
    weight : array, optional
        Weight of each class, (classes,), any real dtype.
    label_smoothing : float
        In [0, 1].
    ignore_index : int
        Rows with this id count neither in the loss nor in the gradient. With probabilities it
        must be negative, since it is not used.
    grad_scale : float or array
        The gradient is multiplied by it before it is rounded, so that in float16 small ones do not
        become 0: a number or an array of one element.
    out : tuple of array, optional
        ``(loss, saved)``, overwritten and returned; None entries are allocated. ``saved`` is what
        an earlier call returned for logits of this shape and dtype, or any array like ``logits``.

    Returns
    -------
    loss : array
        0-d, float64 for float64 logits, else float32. Where no row counts (all ignored, or N = 0)
        it is 0, and so is the gradient.
    saved : array
        For `cross_entropy_bwd`; its contents may change between versions.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device; also for floating class ids.
    ValueError
        If shapes do not fit, ``label_smoothing`` is out of range, probabilities hold a NaN, an id
        is out of range (on CUDA the loss is NaN instead), or an output overlaps another array.

    Notes
    -----
    Equal to ``torch.nn.functional.cross_entropy`` with reduction "mean" but for no row left (NaN
    there), and a class whose target is 0, which adds nothing even where its logit is -inf.
    """
    op = "cross_entropy_fwd"
    logits = as_input(op, "logits", logits)
    target = _target(op, logits, as_input(op, "target", target, converted=True))
    wide = wide_dtype(logits)
    if weight is not None:
        weight = _converted(op, "weight", as_input(op, "weight", weight, converted=True), wide)
    loss, saved = outputs(op, out, 2)
    loss = output(op, "out[0] (loss)", loss, logits, (), wide)
    saved = output(op, "out[1] (saved)", saved, logits, logits.shape)
    smoothing = number(op, "label_smoothing", label_smoothing)
    ignored = integer(op, "ignore_index", ignore_index)
    factor = scalar(op, "grad_scale", grad_scale)
    _core.cross_entropy_fwd(logits, target, weight, smoothing, ignored, factor, loss, saved)
    return loss, saved


def _target(op: str, logits: Array, target: Array) -> Array:
    if target.ndim == 1:
        if target.dtype.name not in ("int32", "int64"):
            raise TypeError(
                f"{op}: target must be class ids (N,) of int32 or int64, or probabilities "
                f"(N, classes), got shape {target.shape} {target.dtype}"
            )
        return target
    return _converted(op, "target", target, logits.dtype)


def _converted(op: str, name: str, x: Array, dtype: np.dtype[Any]) -> Array:
    """Return real numbers in a floating ``dtype``; a dtype that no operator takes is left to it."""
    real = x.dtype.kind in "biuf" or x.dtype.name == "bfloat16"
    if not real:
        raise TypeError(f"{op}: {name} must have a real dtype, got {x.dtype}")
    return x if dtype.kind in "biu" else x.astype(dtype, copy=False)


def cross_entropy_bwd(
    saved: Array, *, scale: float | Array = 1.0, out: Array | None = None
) -> Array:
    """Compute ``dlogits``, the gradient of the loss times ``scale``.

    Parameters
    ----------
    saved : array
        As `cross_entropy_fwd` returned it; it is not changed, and may be used again.
    scale : float or array
        The gradient of what follows the loss: a number or an array of one element.
    out : array, optional
        Overwritten and returned; must not overlap ``saved``.

    Returns
    -------
    array
        ``dlogits``, shape and dtype of the logits.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device.
    ValueError
        If ``out`` has another shape, is read-only, or overlaps ``saved``.
    """
    op = "cross_entropy_bwd"
    saved = as_input(op, "saved", saved)
    dlogits = output(op, "out", out, saved, saved.shape)
    _core.cross_entropy_bwd(saved, scalar(op, "scale", scale), dlogits)
    return dlogits


def mse_fwd(y: Array, target: Array, *, out: Array | None = None) -> Array:
    """Compute the mean of ``(y - target)**2`` over all elements.

    Parameters
    ----------
    y, target : array
        One shape and dtype: float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    out : array, optional
        The 0-d loss, overwritten and returned.

    Returns
    -------
    array
        0-d, float64 for float64 inputs, else float32; 0 where there are no elements.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device.
    ValueError
        If shapes differ (nothing is broadcast), or ``out`` is read-only or overlaps an input.
    """
    op = "mse_fwd"
    y, target = as_input(op, "y", y), as_input(op, "target", target)
    loss = output(op, "out", out, y, (), wide_dtype(y))
    _core.mse_fwd(y, target, loss)
    return loss


def mse_bwd(
    y: Array, target: Array, *, scale: float | Array = 1.0, out: Array | None = None
) -> Array:
    """Compute ``dy = 2 * scale * (y - target) / size``, the gradient of `mse_fwd` times ``scale``.

    Parameters
    ----------
    y, target : array
        As in `mse_fwd`.
    scale : float or array
        The gradient of what follows the loss, or a loss scale: a number or an array of one element.
    out : array, optional
        Overwritten and returned; must not overlap an input.

    Returns
    -------
    array
        ``dy``, shape and dtype of ``y``.

    Raises
    ------
    TypeError, ValueError
        As `mse_fwd`.
    """
    op = "mse_bwd"
    y, target = as_input(op, "y", y), as_input(op, "target", target)
    dy = output(op, "out", out, y, y.shape)
    _core.mse_bwd(y, target, scalar(op, "scale", scale), dy)
    return dy
