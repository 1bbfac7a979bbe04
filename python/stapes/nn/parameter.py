"""Weights with their gradients."""

from __future__ import annotations

import numpy as np

from stapes import ops
from stapes.device import Array, array_module, as_input, device_of, empty, to_device

WEIGHT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
"""What weights are kept in: 16-bit training keeps float32 masters."""


class Parameter:
    """A weight array, its gradient and its name.

    Parameters
    ----------
    data : array
        float32 or float64.
    name : str
        torch's name, counted from the outermost container: ``"0.weight"``.

    Attributes
    ----------
    name : str
    data : array
        May be assigned: an array of the same shape, float32 or float64. It is copied, so the
        assigned array is never trained, and where dtype and device stay the same the storage does
        too.
    grad : array or None
        The gradient that the last ``backward`` left; None before the first. After a step in fp16
        it is multiplied by the loss scale.
    rounded : array or None
        A 16-bit copy, with which 16-bit networks compute.
    """

    def __init__(self, data: Array, name: str = "") -> None:
        self.name = name
        self._data = data
        self.grad: Array | None = None
        self.rounded: Array | None = None
        self._stale = self._lent = False

    @property
    def data(self) -> Array:
        """The weights themselves."""
        self._stale = self._lent = True  # whoever has them may change them
        return self._data

    @data.setter
    def data(self, value: Array) -> None:
        value = as_input(f"Parameter {self.name}", "data", value)
        if value.dtype not in WEIGHT_DTYPES:
            raise TypeError(
                f"Parameter {self.name}: data must be float32 or float64, got {value.dtype}"
            )
        if value.shape != self.shape:
            raise ValueError(
                f"Parameter {self.name}: data must have shape {self.shape}, got {value.shape}"
            )
        if value.dtype == self._data.dtype and device_of(value) == device_of(self._data):
            self._data[...] = value
        else:
            self._data, self.rounded = value.copy(), None
        self._stale = True

    def assign(self, value: Array) -> None:
        """Overwrite the weights in place, by values of any floating dtype and on any device."""
        self._data[...] = to_device(value, device_of(self._data))
        self._stale = True

    def like(self, x: Array) -> Array:
        """Return the weights in the dtype of ``x``: the 16-bit copy where there is one."""
        rounded = self.rounded
        return rounded if rounded is not None and rounded.dtype == x.dtype else self._data

    def round_to(self, dtype: np.dtype[np.generic]) -> None:
        """Make the copy ``rounded`` where there is none, and bring it up to date.

        An optimizer that writes both keeps it so; other changes to the weights are noticed, those
        to an array that was once got from ``data`` by doing it again every time.
        """
        if self.rounded is None or self.rounded.dtype != dtype:
            self.rounded, self._stale = array_module(self._data).empty(self.shape, dtype), True
        if self._stale:
            ops.cast(self._data, dtype, out=self.rounded)
            self._stale = self._lent

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``data``."""
        return tuple(self._data.shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Dtype of ``data``."""
        return self._data.dtype  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self._data.size)

    def gradient(self) -> Array:
        """Return the array that ``backward`` writes: ``grad`` where it fits, else a new one."""
        grad = self.grad
        if (
            grad is None
            or grad.shape != self._data.shape
            or grad.dtype != self._data.dtype
            or device_of(grad) != device_of(self._data)
        ):
            self.grad = grad = empty(array_module(self._data), self.shape, self._data.dtype)
        return grad

    def replace(self, data: Array) -> None:
        """Put in an array of another dtype or device, keeping the name; the gradient is dropped."""
        self._data, self.grad, self.rounded = data, None, None
        self._lent = False

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, {self.dtype})"
