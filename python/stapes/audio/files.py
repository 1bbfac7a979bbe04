"""Sound files: reading, resampling, writing; soundfile and soxr are imported on first use."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stapes._files import atomic_write
from stapes.audio.decode import AudioError, StrPath, check_regular_file, decode

_WRITE_FRAMES = 16000  # one large Vorbis write overflows libsndfile's stack


def load(
    path: StrPath, *, sample_rate: int | None = None, mono: bool = True
) -> tuple[npt.NDArray[np.float32], int]:
    """Read a sound file.

    Parameters
    ----------
    path : path-like
        Anything libsndfile reads: WAV, FLAC, OGG (Vorbis, Opus), MP3, AIFF, AU, CAF, ...
    sample_rate : int, optional
        Rate to resample to, in Hz (soxr, its high quality setting); None keeps the file's own.
    mono : bool
        Whether to average the channels.

    Returns
    -------
    samples : ndarray of float32
        ``(samples,)``, or ``(samples, channels)`` with ``mono=False``. Full scale is 1.
    sample_rate : int
        Their rate in Hz.

    Raises
    ------
    AudioError
        If the file is missing, empty, no sound file, cut short (a header that promises more than
        could be read; a cut stream without such a promise, as OGG, gives what is left of it), or
        holds no sample, a NaN or an infinity. It has the attributes ``path`` and ``reason``.
    TypeError, ValueError
        If `path` is no path or `sample_rate` no positive whole number.
    """
    if sample_rate is not None:
        check_rate("load", sample_rate)
    name = os.fspath(path)
    check_regular_file(name)
    samples, rate = decode(name)
    _check_samples(name, samples)
    out = _mix(samples) if mono else samples
    if sample_rate is not None and sample_rate != rate:
        out = resample(out, rate, sample_rate)
        rate = int(sample_rate)
        if out.shape[0] == 0:
            raise AudioError(
                name, f"too short to be resampled to {rate} Hz: {len(samples)} samples"
            )
        _check_samples(name, out)
    return out, rate


def resample(samples: npt.NDArray[np.float32], rate: int, to: int) -> npt.NDArray[np.float32]:
    """Resample from `rate` to `to` Hz with soxr's high quality setting.

    Parameters
    ----------
    samples : ndarray of float32
        ``(samples,)`` or ``(samples, channels)``.
    rate, to : int
        Hz.

    Returns
    -------
    ndarray of float32
        About ``len(samples) * to / rate`` samples, same channels.
    """
    import soxr

    check_rate("resample", rate)
    check_rate("resample", to)
    out: npt.NDArray[np.float32] = soxr.resample(np.ascontiguousarray(samples), rate, to, "HQ")
    return np.ascontiguousarray(out, dtype=np.float32)


def save(path: StrPath, samples: npt.ArrayLike, sample_rate: int) -> None:
    """Write a sound file, whole or not at all; the suffix chooses the format.

    Parameters
    ----------
    path : path-like
        ``.wav`` (16 bit), ``.flac``, ``.ogg``, ``.mp3``, ``.aiff``, ...; replaced if it exists.
    samples : array of float
        ``(samples,)`` or ``(samples, channels)``, full scale 1; what is beyond it is clipped.
    sample_rate : int
        Hz.

    Raises
    ------
    ValueError
        If the suffix is none that libsndfile writes, the format takes no such rate or number of
        channels, or the samples are not finite or of a wrong shape.
    TypeError
        If the samples are not floating point.
    OSError
        If the file cannot be written.
    """
    import soundfile

    check_rate("save", sample_rate)
    x = np.asarray(samples)
    if x.dtype.kind != "f":
        raise TypeError(f"save: samples must be floating point (full scale 1), got {x.dtype}")
    if x.ndim not in (1, 2) or x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"save: samples must be finite and (samples[, channels]), got {x.shape}")
    target = Path(path)
    container = target.suffix[1:].upper()
    container = {"AIF": "AIFF"}.get(container, container)
    if container not in soundfile.available_formats() or container == "RAW":
        raise ValueError(f"save: cannot write {target.suffix or 'a file without suffix'}: {target}")
    x = np.clip(x, -1.0, 1.0).astype(np.float32)
    channels = 1 if x.ndim == 1 else x.shape[1]
    encoded = io.BytesIO()
    try:
        with soundfile.SoundFile(encoded, "w", sample_rate, channels, format=container) as file:
            for start in range(0, len(x), _WRITE_FRAMES):
                file.write(x[start : start + _WRITE_FRAMES])
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"save: {container} does not take {channels} channels at {sample_rate} Hz: "
            f"{error.error_string}"
        ) from None
    with atomic_write(target) as stream:
        stream.write(encoded.getbuffer())


def check_rate(function: str, rate: int) -> None:
    """Raise unless `rate` is a positive whole number of Hz."""
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer):
        raise TypeError(f"{function}: sample_rate must be an int (Hz), got {type(rate).__name__}")
    if rate < 1:
        raise ValueError(f"{function}: sample_rate must be positive, got {rate}")


def _check_samples(path: str, samples: npt.NDArray[np.float32]) -> None:
    if samples.shape[0] == 0:
        raise AudioError(path, "holds no samples")
    finite = np.isfinite(samples)
    if not finite.all():
        first = int(np.argmin(finite.reshape(len(samples), -1).all(axis=1)))
        raise AudioError(path, f"sample {first} is not a finite number")


def _mix(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if samples.shape[1] == 1:
        return samples[:, 0]
    mean: npt.NDArray[np.float64] = samples.mean(axis=1, dtype=np.float64)
    return mean.astype(np.float32)
