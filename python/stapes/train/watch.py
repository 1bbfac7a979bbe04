"""Whether a captured step still does what it would do if it were captured now."""

from __future__ import annotations

from collections.abc import Iterable
from operator import is_
from typing import TYPE_CHECKING, Any

from stapes.nn.layer import Layer

if TYPE_CHECKING:
    from stapes.optim import Optimizer

_SETTING = (bool, int, float, str, tuple, type(None))
_NOT_WATCHED = (
    *("steps", "offset", "lr"),  # brought to the device before each launch
    "training",  # of which there are programs of their own
)


class Watch:
    """Knows whether a program would still do what its function does now.

    It holds addresses and numbers, so arrays that were replaced (weights moved or assigned in
    another dtype, an optimizer's state that was loaded) and arguments that were changed (dropout's
    ``p``, a weight decay) ask for new programs.
    """

    def __init__(
        self, layers: Iterable[Layer], optimizer: Optimizer | None = None, loss: Any = None
    ) -> None:
        self._layers, self._optimizer, self._loss = list(layers), optimizer, loss
        owners = [*self._layers, optimizer, loss]
        self._settings = [
            (vars(owner), name)
            for owner in owners
            for name, value in getattr(owner, "__dict__", {}).items()
            if name not in _NOT_WATCHED and not name.startswith("_") and isinstance(value, _SETTING)
        ]
        self._arrays, self._values = self._arrays_now(), self._values_now()

    def changed(self) -> bool:
        """Tell whether anything is not what it was."""
        arrays = self._arrays_now()
        same = len(arrays) == len(self._arrays)
        same = same and all(map(is_, arrays, self._arrays))
        return not same or self._values_now() != self._values

    def _arrays_now(self) -> list[Any]:
        arrays = [getattr(self._loss, "weight", None)]
        if self._optimizer is not None:
            arrays += self._optimizer._arrays()
        for layer in self._layers:
            for p in layer._parameters.values():
                arrays += (p._data, p.grad, p.rounded)
            arrays += layer._buffers.values()
        return arrays

    def _values_now(self) -> list[Any]:
        return [owner.get(name) for owner, name in self._settings]
