"""Mel scales, triangular filter banks, windows and the DCT, in float64."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

# Slaney's scale (Auditory Toolbox, 1998): linear to 1 kHz, 27 steps for each factor of 6.4 above.
_SLANEY_HZ_PER_MEL = 200.0 / 3.0
_SLANEY_BREAK_HZ = 1000.0
_SLANEY_BREAK_MEL = _SLANEY_BREAK_HZ / _SLANEY_HZ_PER_MEL
_SLANEY_LOG_STEP = math.log(6.4) / 27.0


def hz_to_mel(hz: npt.ArrayLike, scale: str) -> Floats:
    """Return mels of frequencies in Hz; `scale` is "slaney", "htk" or "kaldi"."""
    f: Floats = np.asarray(hz, np.float64)
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + f / 700.0)
    if scale == "kaldi":
        return 1127.0 * np.log(1.0 + f / 700.0)
    above: Floats = np.log(np.maximum(f, _SLANEY_BREAK_HZ) / _SLANEY_BREAK_HZ) / _SLANEY_LOG_STEP
    return np.minimum(f, _SLANEY_BREAK_HZ) / _SLANEY_HZ_PER_MEL + above


def mel_to_hz(mel: npt.ArrayLike, scale: str) -> Floats:
    """Return frequencies in Hz of mels: the inverse of `hz_to_mel`."""
    m: Floats = np.asarray(mel, np.float64)
    if scale == "htk":
        return 700.0 * (10.0 ** (m / 2595.0) - 1.0)
    if scale == "kaldi":
        return 700.0 * np.expm1(m / 1127.0)
    above: Floats = np.exp(np.maximum(m - _SLANEY_BREAK_MEL, 0.0) * _SLANEY_LOG_STEP)
    return np.minimum(m, _SLANEY_BREAK_MEL) * _SLANEY_HZ_PER_MEL * above


def filter_bank(
    bin_hz: Floats, n_mels: int, fmin: float, fmax: float, scale: str, slaney_norm: bool
) -> Floats:
    """Return triangular filters ``(n_mels, bins)``, corners equally spaced in mel.

    Parameters
    ----------
    bin_hz : ndarray of float64
        Frequencies in Hz of the FFT bins.
    n_mels : int
        Number of filters.
    fmin, fmax : float
        Hz: where the first filter begins and the last ends.
    scale : str
        "slaney" (librosa) and "htk" (torchaudio) draw triangles over Hz, "kaldi" over mels.
    slaney_norm : bool
        Whether to scale each filter by 2 / its width in Hz; otherwise its peak is 1.
    """
    corners = np.linspace(hz_to_mel(fmin, scale), hz_to_mel(fmax, scale), n_mels + 2)
    x = bin_hz
    if scale == "kaldi":
        x = hz_to_mel(bin_hz, scale)
    else:
        corners = mel_to_hz(corners, scale)
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (x - left) / (centre - left)
    falling = (right - x) / (right - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    return weights * (2.0 / (right - left)) if slaney_norm else weights


def hann(length: int) -> Floats:
    """Return the periodic Hann window."""
    if length == 1:
        return np.ones(1)
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)


def povey(length: int) -> Floats:
    """Return Kaldi's default window: the symmetric Hann window to the power 0.85."""
    if length == 1:
        return np.ones(1)
    hanning: Floats = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / (length - 1))
    return np.maximum(hanning, 0.0) ** 0.85


def dct(n_out: int, n_in: int) -> Floats:
    """Return the first `n_out` rows of the orthonormal DCT of type II, ``(n_out, n_in)``."""
    k = np.arange(n_out)[:, None]
    rows: Floats = np.sqrt(2.0 / n_in) * np.cos(np.pi / n_in * (np.arange(n_in) + 0.5) * k)
    rows[0] = np.sqrt(1.0 / n_in)
    return rows


def lifter(n_out: int, q: float) -> Floats:
    """Return cepstral weights ``1 + q/2 sin(pi k / q)``; all 1 for ``q = 0``."""
    if q == 0:
        return np.ones(n_out)
    weights: Floats = 1.0 + 0.5 * q * np.sin(np.pi * np.arange(n_out) / q)
    return weights
