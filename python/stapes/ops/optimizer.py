"""One step of an optimizer, for all parameters of a network in one call."""

from __future__ import annotations

from collections.abc import Sequence

from stapes import _core
from stapes.device import Array, as_input, in_place
from stapes.ops._args import arrays, flag, number, scalar


def sgd_step(
    params: Sequence[Array],
    grads: Sequence[Array],
    velocity: Sequence[Array] | None,
    *,
    lr: float | Array,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    copies: Sequence[Array] | None = None,
    grad_scale: float | Array = 1.0,
    found_inf: Array | None = None,
) -> None:
    """Update ``params`` in place by stochastic gradient descent.

    ``g = grad + weight_decay * p``; ``velocity = momentum * velocity + g``; then
    ``p -= lr * velocity``, or with ``nesterov`` ``p -= lr * (g + momentum * velocity)``.

    Parameters
    ----------
    params : sequence of array
        C-contiguous, all float32 or all float64; updated.
    grads : sequence of array
        One for each parameter, same shape and dtype (on CUDA also float16 or bfloat16); not
        changed.
    velocity : sequence of array or None
        Zero before the first step; updated. With ``momentum`` 0 it is neither read nor written,
        and may be None or empty.
    lr : float or array
        Learning rate, at least 0: a number or an array of one element.
    momentum, weight_decay : float
        At least 0.
    nesterov : bool
        Nesterov's momentum; needs ``momentum`` above 0.
    copies : sequence of array, optional
        On CUDA: a float16 or bfloat16 array for each parameter, to which it is copied rounded.
    grad_scale : float or array
        The factor that the gradients carry, above 0: they are divided by it first.
    found_inf : array, optional
        One element, int32: where it is not 0 nothing is changed.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device (``copies`` on the CPU).
    ValueError
        If lengths or shapes differ, a number is out of range, or an updated array is read-only,
        not C-contiguous, or overlaps another.

    Notes
    -----
    The rule of ``torch.optim.SGD`` without dampening.
    """
    op = "sgd_step"
    momentum = number(op, "momentum", momentum)
    _core.sgd_step(
        arrays(op, "params", params, in_place),
        arrays(op, "grads", grads, as_input),
        arrays(op, "velocity", velocity, in_place) if momentum != 0 else [],
        [] if copies is None else arrays(op, "copies", copies, in_place),
        scalar(op, "lr", lr),
        momentum,
        flag(op, "nesterov", nesterov),
        number(op, "weight_decay", weight_decay),
        scalar(op, "grad_scale", grad_scale),
        None if found_inf is None else as_input(op, "found_inf", found_inf),
    )


def adam_step(
    params: Sequence[Array],
    grads: Sequence[Array],
    m: Sequence[Array],
    v: Sequence[Array],
    step: int | Array,
    *,
    lr: float | Array,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    copies: Sequence[Array] | None = None,
    grad_scale: float | Array = 1.0,
    found_inf: Array | None = None,
) -> None:
    """Update ``params`` in place by Adam, or by AdamW where ``decoupled``.

    ``g = grad + weight_decay * p`` (``decoupled``: ``g = grad``, ``p *= 1 - lr * weight_decay``);
    ``m = beta1 * m + (1 - beta1) * g``; ``v = beta2 * v + (1 - beta2) * g**2``;
    ``p -= lr / (1 - beta1**step) * m / (sqrt(v) / sqrt(1 - beta2**step) + eps)``.

    Parameters
    ----------
    params : sequence of array
        C-contiguous, all float32 or all float64; updated.
    grads : sequence of array
        One for each parameter, same shape and dtype (on CUDA also float16 or bfloat16); not
        changed.
    m, v : sequence of array
        Moments, zero before the first step; updated.
    step : int or array
        1 at the first call: a number or an array of one element.
    lr : float or array
        Learning rate, at least 0: a number or an array of one element.
    betas : tuple of float
        (beta1, beta2), each in [0, 1).
    eps, weight_decay : float
        At least 0.
    decoupled : bool
        Weight decay as in AdamW.
    copies : sequence of array, optional
        On CUDA: a float16 or bfloat16 array for each parameter, to which it is copied rounded.
    grad_scale : float or array
        The factor that the gradients carry, above 0: they are divided by it first.
    found_inf : array, optional
        One element, int32: where it is not 0 nothing is changed.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device (``copies`` on the CPU).
    ValueError
        If lengths or shapes differ, a number is out of range, or an updated array is read-only,
        not C-contiguous, or overlaps another.

    Notes
    -----
    D. Kingma, J. Ba, "Adam", 2015; I. Loshchilov, F. Hutter, "Decoupled Weight Decay
    Regularization", 2019. The rules of ``torch.optim.Adam`` and ``AdamW``.
    """
    op = "adam_step"
    if not isinstance(betas, tuple | list):
        raise TypeError(f"{op}: betas must be (beta1, beta2), got {type(betas).__name__}")
    if len(betas) != 2:
        raise ValueError(f"{op}: betas must be (beta1, beta2), got {betas!r}")
    _core.adam_step(
        arrays(op, "params", params, in_place),
        arrays(op, "grads", grads, as_input),
        arrays(op, "m", m, in_place),
        arrays(op, "v", v, in_place),
        [] if copies is None else arrays(op, "copies", copies, in_place),
        scalar(op, "step", step),
        scalar(op, "lr", lr),
        number(op, "betas[0]", betas[0]),
        number(op, "betas[1]", betas[1]),
        number(op, "eps", eps),
        number(op, "weight_decay", weight_decay),
        flag(op, "decoupled", decoupled),
        scalar(op, "grad_scale", grad_scale),
        None if found_inf is None else as_input(op, "found_inf", found_inf),
    )
