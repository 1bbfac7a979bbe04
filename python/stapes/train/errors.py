"""What went wrong in the numbers, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stapes import ops

if TYPE_CHECKING:
    from stapes.nn.chain import _Chain


class DivergedError(FloatingPointError):
    """A loss or a weight is NaN or infinite; the message names epoch, step and layer."""


def first_not_finite(model: _Chain, x: Any) -> str:
    """Say which is the first layer whose output is not finite, running them one by one.

    The network's state is left as it was.
    """
    if not np.isfinite(x).all():
        return "the input has NaN or infinite values"
    state, randoms = model.state_dict(), model.random_state()
    culprit = "the outputs of all layers are finite"
    with np.errstate(all="ignore"):
        for layer in model.layers:
            x = layer.forward(x)
            if not np.isfinite(x).all():
                culprit = f"the first output that is not finite is that of {layer._label()}"
                break
    bad = [name for name, value in state.items() if not np.isfinite(value).all()]
    model.release()
    model.load_state_dict(state)
    model.load_random_state(randoms)
    return culprit + (f" (its weights before this step: {', '.join(bad)})" if bad else "")


def check_weights(model: _Chain, where: str) -> None:
    """Raise if a weight or a running value is not finite.

    Raises
    ------
    DivergedError
        Naming it.
    """
    from stapes.nn.parameter import Parameter  # stapes.nn imports this

    arrays = {
        name: value._data if isinstance(value, Parameter) else value
        for name, value in model._tensors().items()
    }
    alike = all(array.dtype == model.dtype for array in arrays.values())
    if arrays and alike and not int(ops.find_inf(list(arrays.values()))):
        return  # as nearly always
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise DivergedError(f"{where}: {name} has NaN or infinite values")
