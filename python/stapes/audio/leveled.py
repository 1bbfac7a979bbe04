"""Features without the loudness of the clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stapes.audio.features import Features


class Leveled(Features):
    """Another pipeline's features less their mean over all frames and bands of the clip.

    Over logarithms of a level this takes away how loud the clip was recorded, and keeps how its
    level changes in time and over the bands: two recordings of which one is 20 dB louder give the
    same features (up to where the pipeline underneath cuts off small levels).

    Parameters
    ----------
    features : Features
        The pipeline underneath, `LogMel` for example.

    Raises
    ------
    TypeError
        If `features` is no pipeline.
    """

    def __init__(self, features: Features) -> None:
        if not isinstance(features, Features):
            raise TypeError(f"Leveled: features must be Features, got {type(features).__name__}")
        self.inner = features
        self.sample_rate = features.sample_rate
        self.bands = features.bands

    def frames(self, n_samples: int) -> int:
        """Return the number of frames of `n_samples` samples, as the pipeline underneath."""
        return self.inner.frames(n_samples)

    def config(self) -> dict[str, Any]:
        """Return the inner configuration."""
        return {"type": "Leveled", "features": self.inner.config()}

    def _compute(self, clips: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        values = self.inner._compute(clips)
        level = values.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
        return (values - level).astype(np.float32)
