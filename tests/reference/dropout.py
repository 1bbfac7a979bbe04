"""Dropout whose mask is a function of seed and offset, by Philox4x32-10.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import numpy as np

LOW = np.uint64(0xFFFFFFFF)
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = 0x9E3779B9, 0xBB67AE85


def philox4x32(counters, key, rounds=10):
    """(4, n) 32-bit counter words in uint64, and a 64-bit key -> (4, n) random 32-bit words."""
    c0, c1, c2, c3 = np.uint64(counters)
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(rounds):
        first, second = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (second >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            second & LOW,
            (first >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            first & LOW,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


def uniforms(size, seed, offset):
    """Element i: word i % 4 of counter offset + i // 4, as a multiple of 2^-24 in [0, 1)."""
    counters = [offset + block for block in range(-(-size // 4))]
    words = [[(c >> shift) & 0xFFFFFFFF for c in counters] for shift in (0, 32, 64, 96)]
    random = philox4x32(np.array(words, dtype=np.uint64), seed)
    return (random.T.reshape(-1)[:size] >> np.uint64(8)).astype(np.float64) * 2.0**-24


def kept(shape, p, seed, offset):
    return uniforms(int(np.prod(shape)), seed, offset).reshape(shape) >= p


def dropout_fwd(x, p, *, seed, offset):
    return np.where(kept(x.shape, p, seed, offset), np.float64(x) / (1 - p), 0.0)


def dropout_bwd(dy, p, *, seed, offset):
    return dropout_fwd(dy, p, seed=seed, offset=offset)
