"""Changes of a batch, drawn at random, that leave its meaning as it is: for training only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stapes.audio import Normalized
from stapes.data._dataset import AudioData
from stapes.data._types import Floats, Ints, Seed, seed_sequence
from stapes.ops._args import number

_STREAM = 1
"""Number of the random stream, beside the one of the order of the samples."""


@dataclass(frozen=True)
class Augment:
    """Random shift in time, gain, masks in time and frequency, and mixtures of two samples.

    Each sample gets its own draw of each; what is 0 is off. Done in this order, on features:

    - *shift*: frames are moved in a circle, what leaves at one end comes in at the other;
    - *gain*: the level changes by up to so many decibels. Features are logarithms, so this adds a
      constant to each band, which is measured on the features themselves (all bands of a log-mel
      spectrogram alike, the first coefficient alone of MFCC);
    - *masks* (SpecAugment, Park et al., 2019, arXiv:1904.08779): stretches of frames or bands are
      set to the mean of the band over the data;
    - *mixup* (Zhang et al., 2017, arXiv:1710.09412): each sample is mixed with another one of the
      batch, in the proportion lambda : 1 - lambda, lambda from Beta(alpha, alpha), and so are the
      labels.

    Parameters
    ----------
    shift : float
        Most frames to move by, either way, as part of all frames.
    gain : float
        Most decibels to change the level by, up or down.
    time_masks, band_masks : int
        Number of masks of each sample.
    time_width, band_width : float
        Most frames, or bands, that a mask covers, as part of all.
    mixup : float
        The alpha of the Beta distribution; with it, labels become probabilities.

    Raises
    ------
    TypeError
        If a parameter is no number.
    ValueError
        If a parameter is negative or not finite, or a part is above 1.
    """

    shift: float = 0.1
    gain: float = 6.0
    time_masks: int = 2
    time_width: float = 0.1
    band_masks: int = 2
    band_width: float = 0.1
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number("Augment", name, value)
            most = 1.0 if name in ("shift", "time_width", "band_width") else math.inf
            if not 0 <= value <= most or math.isinf(value):
                raise ValueError(f"Augment: {name} must lie in 0 to {most:g}, got {value}")

    def config(self) -> dict[str, Any]:
        """Return the parameters, as JSON can hold them."""
        return dict(vars(self))

    def __call__(
        self,
        x: Floats,
        y: Ints,
        rng: np.random.Generator,
        *,
        classes: int,
        decibel: npt.ArrayLike = 1.0,
        mean: npt.ArrayLike = 0.0,
    ) -> tuple[Floats, Any]:
        """Change a batch.

        Parameters
        ----------
        x : ndarray of float32
            (samples, frames, bands, 1); not changed.
        y : ndarray of int64
            (samples,).
        rng : Generator
            Where all draws come from.
        classes : int
            Number of classes, for probabilities.
        decibel : array_like
            What one decibel adds to each band, (bands,) or one number.
        mean : array_like
            What a mask sets each band to, (bands,) or one number.

        Returns
        -------
        x : ndarray of float32
            As the one given.
        y : ndarray
            As the one given, or with mixup (samples, classes) float32.
        """
        out = _shifted(x, self.shift, rng)
        if self.gain:
            step = np.asarray(decibel, np.float32).reshape(-1, 1)
            out += rng.uniform(-self.gain, self.gain, (len(x), 1, 1, 1)).astype(np.float32) * step
        value = np.broadcast_to(np.asarray(mean, np.float32).reshape(-1, 1), out.shape)
        for _ in range(self.time_masks):
            np.copyto(out, value, where=_mask(out.shape, 1, self.time_width, rng))
        for _ in range(self.band_masks):
            np.copyto(out, value, where=_mask(out.shape, 2, self.band_width, rng))
        if not self.mixup:
            return out, y
        return _mixed(out, y, self.mixup, classes, rng)


def _shifted(x: Floats, part: float, rng: np.random.Generator) -> Floats:
    frames = x.shape[1]
    most = int(part * frames)
    by = rng.integers(-most, most, (len(x), 1), endpoint=True)
    source = (np.arange(frames) - by) % frames
    moved: Floats = x[np.arange(len(x))[:, np.newaxis], source]
    return moved


def _mask(
    shape: tuple[int, ...], axis: int, part: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return where one mask for each sample lies along an axis; the other axes have size 1."""
    size = shape[axis]
    width = rng.integers(0, int(part * size), (shape[0], 1), endpoint=True)
    first = rng.integers(0, size - width, endpoint=True)
    place = np.arange(size)
    mask: npt.NDArray[np.bool_] = (place >= first) & (place < first + width)
    return np.expand_dims(mask, (2, 3) if axis == 1 else (1, 3))


def _plain(data: AudioData) -> AudioData:
    plain = AudioData.__new__(AudioData)
    vars(plain).update({name: value for name, value in vars(data).items() if name != "augment"})
    return plain


def _mixed(
    x: Floats, y: Ints, alpha: float, classes: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    share = rng.beta(alpha, alpha, len(x)).astype(np.float32)
    other = rng.permutation(len(x))
    labels = np.zeros((len(x), classes), np.float32)
    rows = np.arange(len(x))
    labels[rows, y] = share
    labels[rows, y[other]] += 1 - share
    part = share.reshape(-1, 1, 1, 1)
    return x * part + x[other] * (1 - part), labels


class Augmented(AudioData):
    """Data whose batches are changed at random; all else is the data's own.

    Parameters
    ----------
    data : AudioData
        For training, most often `AudioData.normalized`.
    augment : Augment
        What to do. Its draws for a batch come from the seed and the number of the batch.

    Raises
    ------
    ValueError
        If ``augment`` has a gain, but the features are no logarithms of a level.
    """

    def __init__(self, data: AudioData, augment: Augment) -> None:
        vars(self).update(vars(data))
        self.augment = augment
        if augment.gain:
            self._decibel()

    def split(self, fraction: float, *, seed: Seed, groups: bool = True) -> tuple[Self, AudioData]:
        """Split as `AudioData.split`; the second part, for validation, is not augmented."""
        rest, chosen = super().split(fraction, seed=seed, groups=groups)
        return rest, _plain(chosen)

    def plain(self) -> AudioData:
        """Return the same data as it is: what evaluation and prediction take."""
        return _plain(self)

    def batches(
        self, batch_size: int, *, shuffle: bool = False, seed: Seed = 0, start: int = 0
    ) -> Iterator[tuple[Floats, npt.NDArray[Any]]]:
        """Read batches as `AudioData.batches` does, and change each.

        Yields
        ------
        x : ndarray of float32
            (samples, frames, bands, 1).
        y : ndarray
            (samples,) int64, or with mixup probabilities, (samples, classes) float32.
        """
        plain = super().batches(batch_size, shuffle=shuffle, seed=seed, start=start)
        return self._changed(plain, seed, start)

    def _changed(
        self, plain: Iterator[tuple[Floats, npt.NDArray[Any]]], seed: Seed, start: int
    ) -> Iterator[tuple[Floats, npt.NDArray[Any]]]:
        decibel = self._decibel() if self.augment.gain else 0.0
        mean = 0.0 if isinstance(self.features, Normalized) else self.statistics()[0]
        for place, (x, y) in enumerate(plain, start):
            rng = np.random.default_rng(seed_sequence(seed, _STREAM, place))
            yield self.augment(x, y, rng, classes=len(self.classes), decibel=decibel, mean=mean)

    def _decibel(self) -> npt.NDArray[np.float64]:
        """Measure on noise what one decibel adds to each band."""
        n = max(1, round(self.clip_seconds * self.features.sample_rate))
        noise = 0.1 * np.random.default_rng(0).standard_normal(n)
        by = 6.0
        quiet, plain, loud = (self.features(noise * 10 ** (db / 20)) for db in (-by, 0.0, by))
        step = (loud.astype(np.float64) - plain).mean(axis=0) / by
        error = max(np.abs(loud - plain - by * step).max(), np.abs(plain - quiet - by * step).max())
        if error > 0.01 * np.abs(by * step).max():
            raise ValueError(
                "Augment: gain needs features that are logarithms of a level; use gain=0 with "
                f"{self.features!r}"
            )
        return np.asarray(step)
