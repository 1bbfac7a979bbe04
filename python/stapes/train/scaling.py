"""What keeps numbers finite: the loss scale of fp16, and steps that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stapes import ops
from stapes.device import Array, array_module
from stapes.train.runtime import Runtime

_FIRST_SCALE, _GROWTH, _BACKOFF, _GROWTH_INTERVAL = 2.0**16, 2.0, 0.5, 2000


class LossScale:
    """A factor on the loss, so that 16-bit gradients do not vanish; decided on the device.

    A step whose gradients are not finite is left out and halves the factor; 2000 steps in a row
    that were done double it. Micikevicius et al., Mixed Precision Training, 2018, with the numbers
    of torch.amp.GradScaler.

    Attributes
    ----------
    factor : array
        float32 (1,).
    step : array
        int64 (1,): Adam's step count, steps left out not counted.
    used : array
        float32 (1,): the factor of the last step, which its gradients still carry.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.factor = runtime.put(np.full(1, _FIRST_SCALE, np.float32))
        self.used = runtime.put(np.ones(1, np.float32))
        self.step = runtime.put(np.ones(1, np.int64))
        self._good_steps = runtime.put(np.zeros(1, np.int32))

    def update(self, found_inf: Array) -> None:
        """Take notice of a step, on the device."""
        array_module(self.used).copyto(self.used, self.factor)
        ops.update_scale(
            self.factor,
            self._good_steps,
            found_inf,
            step=self.step,
            growth_factor=_GROWTH,
            backoff_factor=_BACKOFF,
            growth_interval=_GROWTH_INTERVAL,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state; waits for the device."""
        arrays = {"factor": self.factor, "step": self.step, "good_steps": self._good_steps}
        return {name: self._runtime.get(array)[0].item() for name, array in arrays.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state_dict`."""
        self.factor[...], self.step[...] = state["factor"], state["step"]
        self._good_steps[...] = state["good_steps"]


class Guard:
    """Leaves weights as they are from the first loss on that is NaN or infinite.

    The host reads losses late. Until it does, steps after a bad one change nothing, so the weights
    are still those from which it came. With a `LossScale`, steps whose gradients are not finite
    are left out too.

    Attributes
    ----------
    found : array
        0-d, int32: not 0 where the step is to be left out.
    """

    def __init__(self, runtime: Runtime, dtype: np.dtype[Any], scale: LossScale | None) -> None:
        self.scale = scale
        self.found = runtime.empty((), np.int32)
        self._losses = runtime.empty((), dtype)  # minus their sum: not finite from then on
        self.reset()

    def check(self, loss: Array, grads: list[Array]) -> None:
        """Look at a step's loss, 0-d, and its gradients, on the device."""
        ops.sgd_step([self._losses], [loss], None, lr=1.0)
        ops.find_inf([self._losses, *(grads if self.scale else ())], out=self.found)

    def reset(self) -> None:
        """Let steps be done again, after a bad one was reported."""
        self._losses.fill(0)
