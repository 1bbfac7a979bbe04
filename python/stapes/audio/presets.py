"""Conventions of three toolkits: what "log-mel" and "MFCC" mean to each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stapes.audio.mel import Floats, hann, povey


@dataclass(frozen=True)
class Preset:
    """One toolkit's conventions; see `PRESETS`.

    Attributes
    ----------
    padding : str
        "constant" (zeros) or "reflect": frames are centred on multiples of the hop, half an FFT
        is added at both ends; "none": whole frames only, the first starts at sample 0.
    window : callable
        Length to window.
    scale : str
        Mel scale, see `stapes.audio.mel.filter_bank`.
    slaney_norm : bool
        Whether filters are scaled to equal area.
    fmin : float
        Lowest frequency in Hz where none is given.
    gain : float
        What samples are multiplied by.
    remove_mean : bool
        Whether each frame's mean is taken off.
    preemphasis : float
        Each sample of a frame loses so much of the one before it (the first one: of itself).
    floor : float
        Least energy before the logarithm.
    decibels : bool
        10 log10, otherwise the natural logarithm.
    n_mfcc, mfcc_mels : int
        Numbers of coefficients and of bands under them where none are given.
    top_db : float or None
        MFCC: log-mel values further than this below the clip's largest are raised to there.
    lifter : float
        MFCC: cepstral lifter, 0 for none.
    """

    padding: str
    window: Callable[[int], Floats]
    scale: str
    slaney_norm: bool
    fmin: float
    gain: float
    remove_mean: bool
    preemphasis: float
    floor: float
    decibels: bool
    n_mfcc: int
    mfcc_mels: int
    top_db: float | None
    lifter: float


PRESETS = {
    "librosa": Preset(
        padding="constant",
        window=hann,
        scale="slaney",
        slaney_norm=True,
        fmin=0.0,
        gain=1.0,
        remove_mean=False,
        preemphasis=0.0,
        floor=1e-10,
        decibels=True,
        n_mfcc=20,
        mfcc_mels=64,
        top_db=80.0,
        lifter=0.0,
    ),
    "torchaudio": Preset(
        padding="reflect",
        window=hann,
        scale="htk",
        slaney_norm=False,
        fmin=0.0,
        gain=1.0,
        remove_mean=False,
        preemphasis=0.0,
        floor=1e-10,
        decibels=True,
        n_mfcc=40,
        mfcc_mels=64,
        top_db=80.0,
        lifter=0.0,
    ),
    "kaldi": Preset(
        padding="none",
        window=povey,
        scale="kaldi",
        slaney_norm=False,
        fmin=20.0,
        gain=32768.0,
        remove_mean=True,
        preemphasis=0.97,
        floor=2.0**-23,
        decibels=False,
        n_mfcc=13,
        mfcc_mels=23,
        top_db=None,
        lifter=22.0,
    ),
}


def preset_named(name: str, preset: str) -> Preset:
    """Return a preset by its name, or raise ValueError naming those that exist."""
    if preset not in PRESETS:
        raise ValueError(f"{name}: preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    return PRESETS[preset]
