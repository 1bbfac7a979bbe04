"""Log-mel spectrograms."""

import numpy as np


def log_mel(
    x,
    window,
    roots,
    bins,
    weights,
    *,
    frames,
    hop_length,
    offset=0,
    padding="none",
    remove_mean=False,
    preemphasis=0.0,
    floor=1e-10,
    decibels=True,
):
    n_fft, end = len(roots), offset + (frames - 1) * hop_length + len(window)
    before, after = max(0, -offset), max(0, end - x.shape[1])
    if padding != "none":
        x = np.pad(x, ((0, 0), (before, after)), mode=padding)
    bank = np.zeros((n_fft // 2 + 1, len(bins)))
    for band, (first, last) in enumerate(bins):
        for k, weight in enumerate(weights[:, band], int(first)):
            if 0 <= k < min(last, len(bank)):
                bank[k, band] = weight
    y = np.empty((len(x), frames, len(bins)))
    for t in range(frames):
        start = t * hop_length + offset + (before if padding != "none" else 0)
        s = x[:, start : start + len(window)].astype(np.float64)
        if remove_mean:
            s -= s.mean(axis=1, keepdims=True)
        s -= preemphasis * np.concatenate([s[:, :1], s[:, :-1]], axis=1)
        y[:, t] = np.abs(np.fft.rfft(s * window, n_fft)) ** 2 @ bank
    y = np.maximum(y, floor)
    return 10 * np.log10(y) if decibels else np.log(y)
