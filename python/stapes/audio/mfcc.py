"""Mel-frequency cepstral coefficients."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stapes.audio.features import Features, whole
from stapes.audio.logmel import LogMel
from stapes.audio.mel import dct, lifter
from stapes.audio.presets import preset_named


class MFCC(Features):
    """MFCC: the orthonormal DCT (type II) of each frame of a `LogMel` with the same settings.

    ============= =========================== ============================= =======================
    preset        librosa                     torchaudio                    kaldi
    ============= =========================== ============================= =======================
    under the DCT `LogMel`, no lower than 80  as librosa                    `LogMel`
                  dB below the clip's largest
    lifter        none                        none                          22
    n_mfcc        20                          40                            13
    n_mels        64                          64                            23
    ============= =========================== ============================= =======================

    That is ``librosa.feature.mfcc(y=..., n_mels=...)`` with ``power_to_db``'s defaults;
    ``torchaudio.transforms.MFCC``; and Kaldi's ``compute-mfcc-feats --dither=0
    --use-energy=false`` (Kaldi's recipes turn the energy off; so coefficient 0 is the DCT's).
    The limit of 80 dB is taken clip by clip, in a batch too. Where `n_mels` is given and smaller
    than the preset's number of coefficients, that many are the default.

    Largest difference, measured as for `LogMel`: 1e-4 from librosa 0.11 in float32 (3e-5 in
    float64), 3e-5 from torchaudio's and from Kaldi's formulas in float64.

    Parameters
    ----------
    sample_rate, n_fft, win_length, hop_length, fmin, fmax, preset
        As `LogMel`.
    n_mels : int, optional
        Number of bands under the DCT; None: see the table.
    n_mfcc : int, optional
        Number of coefficients, at most `n_mels`; None: see the table.

    Raises
    ------
    TypeError, ValueError
        If a setting is of a wrong type or out of range; calls, see `Features`.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 512,
        win_length: int = 400,
        hop_length: int = 160,
        n_mels: int | None = None,
        fmin: float | None = None,
        fmax: float | None = None,
        preset: str = "librosa",
        n_mfcc: int | None = None,
    ) -> None:
        self._conventions = p = preset_named("MFCC", preset)
        bands = p.mfcc_mels if n_mels is None else n_mels
        self.log_mel = LogMel(sample_rate, n_fft, win_length, hop_length, bands, fmin, fmax, preset)
        self.sample_rate = self.log_mel.sample_rate
        count = min(p.n_mfcc, self.log_mel.bands) if n_mfcc is None else n_mfcc
        self.bands = self.n_mfcc = whole("MFCC", "n_mfcc", count)
        if self.n_mfcc > self.log_mel.bands:
            raise ValueError(
                f"MFCC: n_mfcc ({n_mfcc}) must be at most n_mels ({self.log_mel.bands})"
            )
        self._basis = dct(self.n_mfcc, self.log_mel.bands) * lifter(self.n_mfcc, p.lifter)[:, None]

    def frames(self, n_samples: int) -> int:
        """Return the number of frames of `n_samples` samples, as `LogMel.frames`."""
        return self.log_mel.frames(n_samples)

    def config(self) -> dict[str, Any]:
        """Return the settings, all resolved; `stapes.audio.from_config` rebuilds the object."""
        return {**self.log_mel.config(), "type": "MFCC", "n_mfcc": self.n_mfcc}

    def _compute(self, clips: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        s = self.log_mel._compute(clips)
        if self._conventions.top_db is not None:
            loudest = s.max(axis=(1, 2), keepdims=True)
            np.maximum(s, loudest - np.float32(self._conventions.top_db), out=s)
        out = np.empty((*s.shape[:2], self.n_mfcc), np.float32)
        np.einsum("ntb,kb->ntk", s, self._basis, out=out, casting="same_kind")
        return out
