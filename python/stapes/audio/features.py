"""What every feature pipeline has: `Features`, the common base, and the checks of its input."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from stapes.device import Array, is_cupy

# Full scale is 1. Far beyond it a power spectrum would overflow to infinity.
_MAX_SAMPLE = 1e9


class Features(ABC):
    """Samples to ``(frames, bands)``: called, asked for its sizes, saved and rebuilt from `config`.

    Two pipelines are equal when their configurations are.

    Attributes
    ----------
    sample_rate : int
        Rate in Hz of the samples it takes.
    bands : int
        Size of the last axis of what it gives.
    """

    sample_rate: int
    bands: int
    takes_cupy = False  # whether CuPy arrays are computed, on their GPU

    @abstractmethod
    def frames(self, n_samples: int) -> int:
        """Return the number of frames that `n_samples` samples give.

        Raises
        ------
        ValueError
            If they are too few for one.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the settings, which JSON can hold; `from_config` rebuilds the pipeline."""

    @abstractmethod
    def _compute(self, clips: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Compute ``(batch, frames, bands)`` of checked clips ``(batch, samples)``."""

    def __call__(self, samples: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Compute the features.

        Parameters
        ----------
        samples : array of float32 or float64
            ``(samples,)``, or ``(batch, samples)`` of clips of one length; full scale is 1, rate
            `sample_rate`. A clip gives the same bits alone and in a batch.

        Returns
        -------
        ndarray of float32
            ``(frames, bands)``, or ``(batch, frames, bands)``.

        Raises
        ------
        TypeError
            If the samples are not floating point, or a CuPy array where only the CPU computes.
        ValueError
            If they are too few, not finite, or not of one or two axes.
        """
        name = type(self).__name__
        x = self._checked_cupy(name, samples) if is_cupy(samples) else _checked(name, samples)
        self.frames(x.shape[-1])
        y = self._compute(x[None] if x.ndim == 1 else x)
        return y[0] if x.ndim == 1 else y

    def _checked_cupy(self, name: str, x: Array) -> Array:
        """As `_checked`; whether all are finite is not asked, since that would wait for the GPU."""
        if not self.takes_cupy:
            raise TypeError(f"{name}: computes on the CPU; pass cupy.asnumpy(samples)")
        _check_form(name, x)
        return x.astype(np.float32, copy=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Features):
            return NotImplemented
        return self.config() == other.config()

    def __hash__(self) -> int:
        return hash(json.dumps(self.config(), sort_keys=True))

    def __repr__(self) -> str:
        config = self.config()
        settings = ", ".join(f"{key}={value!r}" for key, value in config.items() if key != "type")
        return f"{config['type']}({settings})"


def _checked(name: str, samples: npt.ArrayLike) -> npt.NDArray[np.floating]:
    x = np.asarray(samples)
    _check_form(name, x)
    x = x.astype(np.float32 if x.dtype.itemsize <= 4 else np.float64, copy=False)
    if x.size and not (x.min() > -_MAX_SAMPLE and x.max() < _MAX_SAMPLE):  # a NaN fails too
        raise ValueError(
            f"{name}: samples must be finite, full scale is 1; got a NaN, an infinity "
            f"or a value beyond {_MAX_SAMPLE:g}"
        )
    return x


def _check_form(name: str, x: Array) -> None:
    """Raise unless dtype and axes are those of samples."""
    if x.dtype.kind in "iu":
        raise TypeError(
            f"{name}: samples must be floating point in [-1, 1], got {x.dtype}: scale integers, "
            "for example 16-bit ones by 1 / 32768"
        )
    if x.dtype.kind != "f":
        raise TypeError(f"{name}: samples must be float32 or float64, got {x.dtype}")
    if x.ndim not in (1, 2):
        raise ValueError(f"{name}: samples must be (samples,) or (batch, samples), got {x.shape}")


def whole(name: str, key: str, value: object, least: int = 1) -> int:
    """Return a setting as an int, or raise if it is not whole or below `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: {key} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: {key} must be at least {least}, got {value}")
    return int(value)


def real(name: str, key: str, value: object) -> float:
    """Return a setting as a finite float, or raise."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: {key} must be a number, got {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{name}: {key} must be finite, got {value}")
    return float(value)
