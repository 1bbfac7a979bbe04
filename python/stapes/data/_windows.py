"""Cutting clips to one length: what training and prediction both use."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_SPARE = 0.1
"""A rest shorter than this part of a window is dropped: 2.01 s are not two windows of 2 s."""


def window_starts(n_samples: int, clip_samples: int) -> npt.NDArray[np.int64]:
    """Return where the windows of a clip begin.

    Windows follow each other without overlap; the last one is moved back to end with the clip. A
    rest shorter than a tenth of a window is dropped. A clip not longer than a window has one, at 0.

    Parameters
    ----------
    n_samples, clip_samples : int
        Length of the clip and of a window, in samples.

    Returns
    -------
    ndarray of int64
        First sample of each window; at least one.

    Raises
    ------
    ValueError
        If either length is below 1.
    """
    if n_samples < 1 or clip_samples < 1:
        raise ValueError(
            "windows: the clip and the window must have at least one sample; "
            f"got {n_samples} and {clip_samples}"
        )
    count = max(1, math.ceil(n_samples / clip_samples - _SPARE))
    starts = np.arange(count, dtype=np.int64) * clip_samples
    return np.minimum(starts, max(0, n_samples - clip_samples))


def windows(samples: npt.ArrayLike, clip_samples: int) -> npt.NDArray[np.float32]:
    """Cut a clip into windows of one length, or pad it with zeros at its end to one.

    Parameters
    ----------
    samples : array_like
        One channel, shape (samples,).
    clip_samples : int
        Length of a window, in samples.

    Returns
    -------
    ndarray of float32
        Shape (n, clip_samples); n = 1 for clips that are not longer. See `window_starts`.

    Raises
    ------
    ValueError
        If ``samples`` is empty or has another number of axes, or ``clip_samples`` is below 1.
    """
    clip = np.asarray(samples, dtype=np.float32)
    if clip.ndim != 1:
        raise ValueError(f"windows: samples must have one axis, got shape {clip.shape}")
    starts = window_starts(clip.size, clip_samples)
    if clip.size < clip_samples:
        clip = np.pad(clip, (0, clip_samples - clip.size))
    every = np.lib.stride_tricks.sliding_window_view(clip, clip_samples)
    return np.ascontiguousarray(every[starts])
