"""torchaudio's and Kaldi's features, written from their sources and independent of Stapes.

torchaudio: transforms.MelSpectrogram, functional.melscale_fbanks, AmplitudeToDB, create_dct, with
torch.stft in float64. Kaldi: feat/feature-window.cc, mel-computations.cc, feature-fbank.cc and
feature-mfcc.cc, in float64, frame by frame and bin by bin.
"""

import math

import numpy as np


def torchaudio_log_mel(x, sample_rate, n_fft, win_length, hop_length, n_mels, fmin, fmax):
    import torch

    spectrum = torch.stft(
        torch.from_numpy(np.asarray(x, np.float64)),
        n_fft,
        hop_length,
        win_length,
        window=torch.hann_window(win_length, periodic=True, dtype=torch.float64),
        center=True,
        pad_mode="reflect",
        normalized=False,
        onesided=True,
        return_complex=True,
    )
    power = spectrum.abs().pow(2.0)

    def to_mel(hz):
        return 2595.0 * math.log10(1.0 + hz / 700.0)

    freqs = torch.linspace(0, sample_rate // 2, n_fft // 2 + 1, dtype=torch.float64)
    points = torch.linspace(to_mel(fmin), to_mel(fmax), n_mels + 2, dtype=torch.float64)
    points = 700.0 * (10.0 ** (points / 2595.0) - 1.0)
    widths = points[1:] - points[:-1]
    slopes = points.unsqueeze(0) - freqs.unsqueeze(1)
    down = (-1.0 * slopes[:, :-2]) / widths[:-1]
    up = slopes[:, 2:] / widths[1:]
    bank = torch.clamp(torch.min(down, up), min=0.0)
    mel = torch.matmul(power.transpose(-1, -2), bank)
    return 10.0 * torch.log10(torch.clamp(mel, min=1e-10))  # (frames, bands)


def torchaudio_mfcc(x, sample_rate, n_fft, win_length, hop_length, n_mels, fmin, fmax, n_mfcc):
    import torch

    s = torchaudio_log_mel(x, sample_rate, n_fft, win_length, hop_length, n_mels, fmin, fmax)
    s = torch.max(s, s.max() - 80.0)
    n = torch.arange(float(n_mels), dtype=torch.float64)
    k = torch.arange(float(n_mfcc), dtype=torch.float64).unsqueeze(1)
    dct = torch.cos(math.pi / float(n_mels) * (n + 0.5) * k)
    dct[0] *= 1.0 / math.sqrt(2.0)
    dct *= math.sqrt(2.0 / float(n_mels))
    return torch.matmul(s, dct.t()).numpy()


def kaldi_fbank(x, sample_rate, n_fft, win_length, hop_length, n_mels, fmin, fmax):
    x = np.asarray(x, np.float64) * 32768.0
    i = np.arange(win_length)
    window = (0.5 - 0.5 * np.cos(2.0 * math.pi / (win_length - 1) * i)) ** 0.85
    bank = kaldi_mel_banks(sample_rate, n_fft, n_mels, fmin, fmax)
    rows = []
    for t in range(1 + (len(x) - win_length) // hop_length):
        frame = x[t * hop_length : t * hop_length + win_length].copy()
        frame -= frame.sum() / win_length
        for n in range(win_length - 1, 0, -1):
            frame[n] -= 0.97 * frame[n - 1]
        frame[0] -= 0.97 * frame[0]
        padded = np.zeros(n_fft)
        padded[:win_length] = frame * window
        power = np.abs(np.fft.fft(padded)[: n_fft // 2]) ** 2
        energies = bank @ power
        rows.append(np.log(np.maximum(energies, np.finfo(np.float32).eps)))
    return np.array(rows)


def kaldi_mel_banks(sample_rate, n_fft, n_mels, fmin, fmax):
    def mel_scale(hz):
        return 1127.0 * math.log(1.0 + hz / 700.0)

    low, high = mel_scale(fmin), mel_scale(fmax)
    delta = (high - low) / (n_mels + 1)
    bank = np.zeros((n_mels, n_fft // 2))
    for b in range(n_mels):
        left, centre, right = low + b * delta, low + (b + 1) * delta, low + (b + 2) * delta
        for i in range(n_fft // 2):
            mel = mel_scale(sample_rate / n_fft * i)
            if left < mel < right:
                if mel <= centre:
                    bank[b, i] = (mel - left) / (centre - left)
                else:
                    bank[b, i] = (right - mel) / (right - centre)
    return bank


def kaldi_mfcc(x, sample_rate, n_fft, win_length, hop_length, n_mels, fmin, fmax, n_mfcc):
    s = kaldi_fbank(x, sample_rate, n_fft, win_length, hop_length, n_mels, fmin, fmax)
    dct = np.zeros((n_mfcc, n_mels))
    dct[0] = math.sqrt(1.0 / n_mels)
    for k in range(1, n_mfcc):
        for n in range(n_mels):
            dct[k, n] = math.sqrt(2.0 / n_mels) * math.cos(math.pi / n_mels * (n + 0.5) * k)
    lifter = np.array([1.0 + 0.5 * 22.0 * math.sin(math.pi * k / 22.0) for k in range(n_mfcc)])
    return s @ dct.T * lifter
