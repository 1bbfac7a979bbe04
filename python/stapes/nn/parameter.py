"""Weights with their gradients."""

from __future__ import annotations

import numpy as np

from stapes.device import Array, array_module, as_input, is_cupy

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
        The gradient that the last ``backward`` left; None before the first.
    """

    def __init__(self, data: Array, name: str = "") -> None:
        self.name = name
        self._data = data
        self.grad: Array | None = None

    @property
    def data(self) -> Array:
        """The weights themselves."""
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
        if value.dtype == self._data.dtype and is_cupy(value) == is_cupy(self._data):
            self._data[...] = value
        else:
            self._data = value.copy()

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
            or is_cupy(grad) != is_cupy(self._data)
        ):
            self.grad = grad = array_module(self._data).empty_like(self._data)
        return grad

    def replace(self, data: Array) -> None:
        """Put in an array of another dtype or device, keeping the name; the gradient is dropped."""
        self._data, self.grad = data, None

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, {self.dtype})"
