"""Per-band normalisation of another pipeline, and pipelines from their configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stapes.audio.features import Features
from stapes.audio.logmel import LogMel
from stapes.audio.mfcc import MFCC


class Normalized(Features):
    """``(value - mean) / std`` of each band of another pipeline's features.

    Parameters
    ----------
    features : Features
        The pipeline underneath.
    mean, std : array of float
        One value a band, as measured on the training set. A band whose `std` is 0 never changed
        there: it is centred, and not scaled.

    Raises
    ------
    TypeError
        If `features` is no pipeline.
    ValueError
        If `mean` or `std` has not one finite value a band, or `std` is negative somewhere.
    """

    def __init__(self, features: Features, mean: npt.ArrayLike, std: npt.ArrayLike) -> None:
        if not isinstance(features, Features):
            raise TypeError(f"Normalized: features must be Features, got {type(features).__name__}")
        self.inner = features
        self.sample_rate = features.sample_rate
        self.bands = features.bands
        self.mean, self.std = (np.array(v, np.float64) for v in (mean, std))
        for key, value in (("mean", self.mean), ("std", self.std)):
            if value.shape != (self.bands,) or not np.isfinite(value).all():
                raise ValueError(
                    f"Normalized: {key} must hold {self.bands} finite values, got shape "
                    f"{value.shape}"
                )
        if (self.std < 0).any():
            raise ValueError(f"Normalized: std must not be negative, got {self.std.min():g}")
        self._scale = 1.0 / np.where(self.std == 0, 1.0, self.std)

    def frames(self, n_samples: int) -> int:
        """Return the number of frames of `n_samples` samples, as the pipeline underneath."""
        return self.inner.frames(n_samples)

    def config(self) -> dict[str, Any]:
        """Return both lists and the inner configuration."""
        return {
            "type": "Normalized",
            "features": self.inner.config(),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }

    def normalize(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Normalise features ``(..., bands)`` that the inner pipeline computed."""
        return ((values - self.mean) * self._scale).astype(np.float32)

    def _compute(self, clips: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        return self.normalize(self.inner._compute(clips))


def from_config(config: Mapping[str, Any]) -> Features:
    """Rebuild a pipeline from what its ``config()`` returned.

    Parameters
    ----------
    config : mapping
        With "type": "LogMel", "MFCC" or "Normalized".

    Returns
    -------
    Features
        Equal to the one that was asked.

    Raises
    ------
    ValueError
        If the type is unknown, or a setting is missing, unknown or out of range.
    TypeError
        If `config` is no mapping, or a setting is of a wrong type.
    """
    if not isinstance(config, Mapping):
        raise TypeError(f"from_config: config must be a mapping, got {type(config).__name__}")
    settings = dict(config)
    kind = settings.pop("type", None)
    types: dict[Any, type[Features]] = {"LogMel": LogMel, "MFCC": MFCC, "Normalized": Normalized}
    if kind not in types:
        raise ValueError(f"from_config: type must be one of {', '.join(types)}, got {kind!r}")
    keys = _SETTINGS[kind]
    if set(settings) != keys:
        raise ValueError(
            f"from_config: {kind} takes {sorted(keys)}, got {sorted(map(str, settings))}"
        )
    if kind == "Normalized":
        settings["features"] = from_config(settings["features"])
    return types[kind](**settings)


_LOG_MEL = {
    "sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "fmin", "fmax", "preset",
}  # fmt: skip
_SETTINGS = {
    "LogMel": _LOG_MEL,
    "MFCC": _LOG_MEL | {"n_mfcc"},
    "Normalized": {"features", "mean", "std"},
}
