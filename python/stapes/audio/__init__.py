"""Sound files and features: `load`, `LogMel`, `MFCC` and per-band normalisation.

Importing this needs NumPy alone; libsndfile and soxr are loaded by the first call of `load`.
"""

from stapes.audio.decode import AudioError
from stapes.audio.features import Features
from stapes.audio.files import load, resample, save
from stapes.audio.logmel import LogMel
from stapes.audio.mfcc import MFCC
from stapes.audio.normalized import Normalized, from_config

__all__ = [
    "MFCC",
    "AudioError",
    "Features",
    "LogMel",
    "Normalized",
    "from_config",
    "load",
    "resample",
    "save",
]
