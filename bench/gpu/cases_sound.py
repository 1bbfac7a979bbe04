"""Log-mel spectrograms of clips of one second, by torchaudio's formula."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from case import Case

from stapes.audio import LogMel

SAMPLES = 16000


def sound_cases() -> Iterator[Case]:
    """Yield the log-mel spectrogram; PyTorch's is an stft, a product with the filters, a log."""
    features = LogMel(preset="torchaudio")

    def before(t: Any) -> dict[str, Any]:
        window, _, bins, weights = features.operator_tables()
        filters = np.zeros((features.n_fft // 2 + 1, features.bands))
        for band, (begin, end) in enumerate(bins):
            filters[begin:end, band] = weights[: end - begin, band]
        like = {"dtype": t.x.dtype, "device": t.x.device}
        return {"window": torch.tensor(window, **like), "filters": torch.tensor(filters, **like)}

    def theirs(t: Any) -> tuple[torch.Tensor, ...]:
        spectrum = torch.stft(
            t.x, features.n_fft, features.hop_length, features.win_length, t.window,
            center=True, pad_mode="reflect", return_complex=True,
        )  # fmt: skip
        energies = spectrum.abs().square().transpose(1, 2) @ t.filters
        return (10 * torch.log10(energies.clamp_min(1e-10)),)

    yield Case(
        "log-mel, 1 s at 16 kHz", "other", lambda n: {"x": (n, SAMPLES)},
        ours=lambda a, p, out: features(a.x), theirs=theirs, theirs_before=before, fp32_only=True,
    )  # fmt: skip
