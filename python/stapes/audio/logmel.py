"""Log-mel spectrograms: presets, and the tables that `stapes.ops.log_mel` computes them with.

One kernel goes from the samples to the logarithms, on the CPU and on GPUs (`csrc/cpu/log_mel.cpp`,
`csrc/cuda/log_mel.cu`). All is float64 until the logarithm: it keeps quiet bands beside loud ones
exact. The bits do not depend on the number of threads.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from stapes.audio.features import Features, real, whole
from stapes.audio.files import check_rate
from stapes.audio.mel import Floats, filter_bank
from stapes.audio.presets import preset_named
from stapes.device import Array, is_cupy
from stapes.ops.log_mel import log_mel


class LogMel(Features):
    """Log-mel spectrogram, as librosa, torchaudio or Kaldi computes it.

    Sizes (rates, lengths, number of bands) are the arguments'; the preset sets the rest:

    ============= ============== =================== ========================
    preset        librosa        torchaudio          kaldi
    ============= ============== =================== ========================
    frames        centred        centred             whole frames only
    ends          zeros          reflected           (``snip_edges``)
    window        periodic Hann  periodic Hann       Povey
    samples       as they are    as they are         times 32768, each frame
                                                     less its mean, pre-
                                                     emphasis 0.97
    mel           Slaney,        HTK, peak 1         Kaldi, triangles over
                  equal area                         mels, peak 1
    lowest fmin   0 Hz           0 Hz                20 Hz
    logarithm     10 log10       10 log10            natural
    least energy  1e-10          1e-10               2**-23
    ============= ============== =================== ========================

    That is ``librosa.power_to_db(librosa.feature.melspectrogram(...), ref=1, top_db=None)``;
    ``torchaudio.transforms.MelSpectrogram`` and ``AmplitudeToDB("power")``; and Kaldi's
    ``compute-fbank-feats --dither=0`` (which has 23 bands unless told). An argument that is given
    wins over the preset.

    Largest difference above -80 dB of a clip's maximum, over the tests' synthetic clips and five
    sets of sizes: 8e-6 dB from librosa 0.11 in float32 (4e-6 in float64), 4e-6 dB from torchaudio's
    formula in float64, 1e-6 (natural logarithm) from Kaldi's formula in float64. From 64 dB on
    rounding to float32 alone is 4e-6. The tests ask for 1e-3 dB and 2.3e-4. Those programs
    themselves, in float32, add their own rounding.

    CuPy arrays are computed on their GPU, within 1e-4 dB of the above (float64 samples are rounded
    to float32). There n_fft may be up to 4096, an odd one up to 2048. Nothing waits for the GPU:
    samples that are not finite are not refused, and give NaN in the frames that hold them.

    Parameters
    ----------
    sample_rate : int
        Hz.
    n_fft : int
        Length of the FFT; a shorter window is padded with zeros. Lengths whose prime factors are
        small are fastest, best 2, 3 and 5.
    win_length, hop_length : int
        Samples in a frame, and from one frame to the next.
    n_mels : int
        Number of bands.
    fmin, fmax : float, optional
        Hz, where the first band begins and the last ends. None: the preset's lowest frequency, and
        half the sample rate.
    preset : str
        "librosa", "torchaudio" or "kaldi".

    Raises
    ------
    TypeError, ValueError
        If a setting is of a wrong type or out of range; calls, see `Features`.
    """

    takes_cupy = True

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 512,
        win_length: int = 400,
        hop_length: int = 160,
        n_mels: int = 64,
        fmin: float | None = None,
        fmax: float | None = None,
        preset: str = "librosa",
    ) -> None:
        name = type(self).__name__
        self._conventions = p = preset_named(name, preset)
        check_rate(name, sample_rate)
        self.preset = preset
        self.sample_rate = int(sample_rate)
        self.n_fft = whole(name, "n_fft", n_fft, 2)
        self.win_length = whole(name, "win_length", win_length)
        self.hop_length = whole(name, "hop_length", hop_length)
        self.bands = self.n_mels = whole(name, "n_mels", n_mels)
        if self.win_length > self.n_fft:
            raise ValueError(f"{name}: win_length ({win_length}) must be at most n_fft ({n_fft})")
        if p.padding == "none" and self.n_fft % 2:
            raise ValueError(f"{name}: preset {preset!r} takes an even n_fft, got {n_fft}")
        # torchaudio halves the rate in whole numbers.
        nyquist = self.sample_rate // 2 if p.scale == "htk" else self.sample_rate / 2
        self.fmin = p.fmin if fmin is None else real(name, "fmin", fmin)
        self.fmax = float(nyquist) if fmax is None else real(name, "fmax", fmax)
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(
                f"{name}: 0 <= fmin < fmax <= sample_rate / 2 must hold, got fmin={self.fmin:g}, "
                f"fmax={self.fmax:g}, sample_rate={self.sample_rate}"
            )
        window = np.asarray(p.window(self.win_length) * p.gain, np.float64)
        self._tables = (window, self._roots(), *self._sparse_filters(nyquist))
        for table in self._tables:  # which operator_tables gives away
            table.setflags(write=False)

    def _roots(self) -> Floats:
        angles = np.arange(self.n_fft) * (-2.0 * np.pi / self.n_fft)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def _sparse_filters(self, nyquist: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return each filter's first and last bin + 1, and its weights, as `log_mel` takes them."""
        p = self._conventions
        n_bins = self.n_fft // 2 + 1
        # torchaudio's last bin is at half the rate also where n_fft is odd.
        spacing = nyquist / (n_bins - 1) if p.scale == "htk" else self.sample_rate / self.n_fft
        bin_hz = np.arange(n_bins, dtype=np.float64) * spacing
        bank = filter_bank(bin_hz, self.n_mels, self.fmin, self.fmax, p.scale, p.slaney_norm)
        used = [np.flatnonzero(band) for band in bank]
        bins = np.array([(u[0], u[-1] + 1) if u.size else (0, 1) for u in used], np.int32)
        weights = np.zeros((int(np.diff(bins).max()), self.n_mels), np.float32)
        for band, (begin, end) in enumerate(bins):
            weights[: end - begin, band] = bank[band, begin:end]
        empty = sum(u.size == 0 for u in used)
        if empty:
            warnings.warn(
                f"LogMel: {empty} of {self.n_mels} bands hold no FFT bin and stay constant: "
                "use a larger n_fft or fewer n_mels",
                stacklevel=3,
            )
        return bins, weights

    def frames(self, n_samples: int) -> int:
        """Return the number of frames of `n_samples` samples.

        Raises
        ------
        ValueError
            If they are fewer than this preset needs for one frame.
        """
        n, p = int(n_samples), self._conventions
        half = self.n_fft // 2
        least = {"constant": 1, "reflect": half + 1, "none": self.win_length}[p.padding]
        if n < least:
            raise ValueError(
                f"LogMel: preset {self.preset!r} with n_fft={self.n_fft}, win_length="
                f"{self.win_length} needs at least {least} samples, got {n}"
            )
        if p.padding == "none":
            return 1 + (n - self.win_length) // self.hop_length
        return 1 + (n + 2 * half - self.n_fft) // self.hop_length

    def config(self) -> dict[str, Any]:
        """Return the settings, all resolved; `stapes.audio.from_config` rebuilds the object."""
        return {
            "type": "LogMel",
            "sample_rate": self.sample_rate,
            "n_fft": self.n_fft,
            "win_length": self.win_length,
            "hop_length": self.hop_length,
            "n_mels": self.n_mels,
            "fmin": self.fmin,
            "fmax": self.fmax,
            "preset": self.preset,
        }

    def _compute(self, clips: Array) -> npt.NDArray[np.float32]:
        tables = _tables_on(self, clips.device.id) if is_cupy(clips) else self._tables
        return log_mel(clips, *tables, **self.operator_settings(clips.shape[1]))  # type: ignore[no-any-return]

    def operator_tables(self) -> tuple[npt.NDArray[Any], ...]:
        """Return the window, roots, bins and weights that `stapes.ops.log_mel` takes: read-only."""
        return self._tables

    def operator_settings(self, n_samples: int) -> dict[str, Any]:
        """Return the keywords that `stapes.ops.log_mel` takes for clips of so many samples."""
        p = self._conventions
        centred = (self.n_fft - self.win_length) // 2 - self.n_fft // 2
        return {
            "frames": self.frames(n_samples),
            "hop_length": self.hop_length,
            "offset": 0 if p.padding == "none" else centred,
            "padding": p.padding,
            "remove_mean": p.remove_mean,
            "preemphasis": p.preemphasis,
            "floor": p.floor,
            "decibels": p.decibels,
        }


@functools.lru_cache(maxsize=16)
def _tables_on(features: LogMel, device: int) -> tuple[Array, ...]:
    """Return `operator_tables` on a GPU. They have arrived: any stream may use them."""
    import cupy

    with cupy.cuda.Device(device):
        tables = tuple(cupy.asarray(table) for table in features.operator_tables())
        cupy.cuda.get_current_stream().synchronize()
    return tables
