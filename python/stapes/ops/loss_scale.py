"""The loss scale of training in float16, which keeps small gradients from becoming 0.

A step: the gradient of the loss is multiplied by the scale (``grad_scale`` of `cross_entropy_fwd`,
``scale`` of `mse_bwd`), the optimizer's step divides by it (``grad_scale`` of `adam_step`) and
changes nothing where `find_inf` found that the scale was too large, and `update_scale` adapts it.
All of it is decided on the device, and nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stapes import _core
from stapes.device import Array, as_input, in_place, output
from stapes.ops._args import arrays, integer, number


def find_inf(grads: Sequence[Array], *, out: Array | None = None) -> Array:
    """Tell whether any element of any gradient is infinite or NaN.

    Parameters
    ----------
    grads : sequence of array
        Any shapes, one dtype: float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    out : array, optional
        0-d, int32, overwritten and returned.

    Returns
    -------
    array
        0-d, int32: 0 where all elements are finite, else another number. It is the ``found_inf``
        of `sgd_step`, `adam_step` and `update_scale`.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device.
    ValueError
        If ``out`` has another shape, is read-only, or overlaps a gradient.
    """
    given = arrays("find_inf", "grads", grads, as_input)
    like = given[0] if given else np.empty(0, np.float32) if out is None else out
    found = output("find_inf", "out", out, like, (), np.dtype(np.int32))
    _core.find_inf(given, found)
    return found


def update_scale(
    scale: Array,
    good_steps: Array,
    found_inf: Array,
    *,
    step: Array | None = None,
    growth_factor: float = 2.0,
    backoff_factor: float = 0.5,
    growth_interval: int = 2000,
) -> None:
    """Adapt a loss scale, in place, to how the step went.

    After a step that was done: ``step += 1; good_steps += 1``, and where that makes
    ``growth_interval`` of them, ``scale *= growth_factor`` (unless it would be infinite) and
    ``good_steps = 0``. After one that was skipped, since ``found_inf`` is not 0:
    ``scale *= backoff_factor; good_steps = 0``.

    Parameters
    ----------
    scale : array
        One element, float32; updated. 2**16 is a usual first value.
    good_steps : array
        One element, int32; updated. Steps done since the scale changed; 0 at first.
    found_inf : array
        One element, int32: as `find_inf` returned it.
    step : array, optional
        One element, int64; updated. The ``step`` of `adam_step`, 1 at first: it counts the steps
        that were done.
    growth_factor, backoff_factor : float
        At least 1; in (0, 1].
    growth_interval : int
        At least 1.

    Raises
    ------
    TypeError
        If an argument is no array, or of another dtype or device.
    ValueError
        If a number is out of range, or an updated array has not one element, is read-only, or
        overlaps another.

    Notes
    -----
    P. Micikevicius et al., "Mixed Precision Training", 2018; the rule of ``torch.amp.GradScaler``.
    """
    op = "update_scale"
    _core.update_scale(
        in_place(op, "scale", scale),
        in_place(op, "good_steps", good_steps),
        as_input(op, "found_inf", found_inf),
        None if step is None else in_place(op, "step", step),
        number(op, "growth_factor", growth_factor),
        number(op, "backoff_factor", backoff_factor),
        integer(op, "growth_interval", growth_interval),
    )
