"""Small sound files for the tests of stapes.data."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import soundfile

from stapes.audio import LogMel

RATE = 8000


class CountingLogMel(LogMel):
    """A small log-mel spectrogram that counts the clips it has seen."""

    def __init__(self) -> None:
        super().__init__(RATE, n_fft=256, win_length=200, hop_length=80, n_mels=16)
        self.clips = 0
        self._lock = threading.Lock()

    def __call__(self, samples):
        with self._lock:
            self.clips += len(samples)
        return super().__call__(samples)


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def write(path: Path, seconds: float = 0.25, seed: int = 0, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds, seed, rate), rate)
    return path


def folder(root: Path, classes: str = "ab", files: int = 4, seconds: float = 0.25) -> Path:
    """Write ``files`` different sounds of each class."""
    for label, name in enumerate(classes):
        for i in range(files):
            write(root / name / f"{i}.wav", seconds, seed=1000 * label + i)
    return root


def gather(data, batch_size: int = 3, **keywords):
    """Return all x and y of a pass over the data."""
    x, y = zip(*data.batches(batch_size, **keywords), strict=True)
    return np.concatenate(x), np.concatenate(y)
