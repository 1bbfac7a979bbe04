"""Synthetic sounds of five kinds, for the demonstration: made by formulas, recorded nowhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

RATE = 16000
SECONDS = 0.5

_Signal = npt.NDArray[np.float64]
_Rng = np.random.Generator


def synthesise(clips: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Make sounds of each kind of `KINDS`.

    Each has a pitch, a level and a place in time of its own, and a noise floor 10 to 30 dB below.

    Parameters
    ----------
    clips : int
        Sounds of each kind.
    seed : int

    Returns
    -------
    samples : ndarray of float32
        (sounds, samples), at `RATE`.
    labels : ndarray of int64
        (sounds,), indices into `KINDS`.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(KINDS)), clips)
    makers = list(_MAKERS.values())
    return np.stack([_finished(makers[label](rng), rng) for label in labels]), labels


def _finished(signal: _Signal, rng: _Rng) -> npt.NDArray[np.float32]:
    signal = signal / np.sqrt(np.mean(signal**2))
    noise = rng.standard_normal(signal.size) * 10 ** (rng.uniform(-30, -10) / 20)
    mixed = (signal + noise) * 10 ** (rng.uniform(-20, 0) / 20)
    return (mixed * 0.1).astype(np.float32)


def _time() -> _Signal:
    return np.arange(round(RATE * SECONDS)) / RATE


def _pitch(rng: _Rng) -> float:
    return float(np.exp(rng.uniform(np.log(200), np.log(2000))))


def _sine(hertz: _Signal | float) -> _Signal:
    """Return a sine of a frequency that may change."""
    phase = np.cumsum(np.broadcast_to(hertz, _time().shape)) / RATE
    return np.asarray(np.sin(2 * np.pi * phase))


def _tone(rng: _Rng) -> _Signal:
    """Make a steady tone with two overtones."""
    pitch = _pitch(rng)
    return _sine(pitch) + 0.5 * _sine(2 * pitch) + 0.25 * _sine(3 * pitch)


def _chirp(rng: _Rng) -> _Signal:
    """Make a tone that glides up or down by one to two octaves."""
    octaves = rng.uniform(1, 2) * rng.choice([-1, 1])
    return _sine(_pitch(rng) * 2 ** (octaves * _time() / SECONDS))


def _vibrato(rng: _Rng) -> _Signal:
    """Make a tone that wavers by a fifth of its pitch, 6 to 12 times a second."""
    waver = np.sin(2 * np.pi * rng.uniform(6, 12) * _time() + rng.uniform(0, 2 * np.pi))
    return _sine(_pitch(rng) * (1 + 0.2 * waver))


def _burst(rng: _Rng) -> _Signal:
    """Make noise that sets in at once and dies away."""
    after = _time() - rng.uniform(0, 0.3) * SECONDS
    decay = np.where(after >= 0, np.exp(-np.maximum(after, 0) / rng.uniform(0.05, 0.15)), 0)
    return rng.standard_normal(after.size) * decay


def _clicks(rng: _Rng) -> _Signal:
    """Make short clicks, 8 to 25 times a second."""
    after = (_time() + rng.uniform(0, 1)) % (1 / rng.uniform(8, 25))
    return np.where(after < 0.002, rng.standard_normal(after.size), 0.0)


_MAKERS: dict[str, Callable[[_Rng], _Signal]] = {
    "tone": _tone,
    "chirp": _chirp,
    "vibrato": _vibrato,
    "noise burst": _burst,
    "clicks": _clicks,
}

KINDS = list(_MAKERS)
"""Names of the classes."""
