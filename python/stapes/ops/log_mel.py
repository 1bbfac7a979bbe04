"""Log-mel spectrograms."""

from __future__ import annotations

import numpy as np

from stapes import _core
from stapes.device import Array, as_input, output
from stapes.ops._args import flag, integer, number


def log_mel(
    x: Array,
    window: Array,
    roots: Array,
    bins: Array,
    weights: Array,
    *,
    frames: int,
    hop_length: int,
    offset: int = 0,
    padding: str = "none",
    remove_mean: bool = False,
    preemphasis: float = 0.0,
    floor: float = 1e-10,
    decibels: bool = True,
    out: Array | None = None,
) -> Array:
    """Compute log-mel spectrograms in one pass over the samples.

    `stapes.audio.LogMel` calls this with the tables of its preset.

    Frame t is ``win_length`` samples from ``t * hop_length + offset`` on. It loses its mean where
    ``remove_mean`` says so, then each sample ``preemphasis`` times the one before it (the first
    one: itself); it is multiplied by the window and transformed. A band's energy is the weighted
    sum of the power spectrum. All is float64 until the logarithm.

    Parameters
    ----------
    x : array of float32
        (N, samples). On the CPU also float64.
    window : array of float64
        (win_length,), at most n_fft.
    roots : array of float64
        (n_fft, 2): real and imaginary part of ``exp(-2 pi i k / n_fft)``. On CUDA, n_fft is
        2 to 4096, or odd and at most 2048. Small prime factors are fastest: one of p above 5
        takes p operations for each number, on the CPU about a hundred at most.
    bins : array of int32
        (bands, 2): begin and end of each band's filter among the n_fft // 2 + 1 bins of the FFT.
        What lies beyond them, or is longer than ``weights``, is left out.
    weights : array of float32
        (width, bands): column b holds the filter of band b, from its first bin on.
    frames : int
        Number of frames.
    hop_length, offset : int
        Samples from one frame to the next, and where the first begins.
    padding : str
        What lies beyond the ends of ``x``: "none" (nothing may be read there), "constant" (zeros)
        or "reflect".
    remove_mean : bool
        Whether each frame's mean is taken off.
    preemphasis : float
        See above; 0 for none.
    floor : float
        Least energy before the logarithm. NaN stays NaN.
    decibels : bool
        10 log10, otherwise the natural logarithm.
    out : array, optional
        Overwritten and returned.

    Returns
    -------
    array
        ``y`` (N, frames, bands), float32.

    Raises
    ------
    TypeError
        If an argument is no array, of another dtype, or on another device.
    ValueError
        If shapes or sizes do not fit, a frame needs samples that are not there, or ``out`` has
        another shape, is read-only or overlaps an input.
    """
    op = "log_mel"
    x, window, roots = (
        as_input(op, "x", x),
        as_input(op, "window", window),
        as_input(op, "roots", roots),
    )
    bins, weights = as_input(op, "bins", bins), as_input(op, "weights", weights)
    shape = (*x.shape[:1], integer(op, "frames", frames), *weights.shape[-1:])
    if shape[1] < 0:
        raise ValueError(f"{op}: frames must be at least 0, got {frames}")
    if not isinstance(padding, str):
        raise TypeError(f"{op}: padding must be a str, got {type(padding).__name__}")
    y = output(op, "out", out, x, shape, np.float32)
    _core.log_mel(
        x, window, roots, bins, weights, y,
        integer(op, "hop_length", hop_length), integer(op, "offset", offset), padding,
        flag(op, "remove_mean", remove_mean), number(op, "preemphasis", preemphasis),
        number(op, "floor", floor), flag(op, "decibels", decibels),
    )  # fmt: skip
    return y
