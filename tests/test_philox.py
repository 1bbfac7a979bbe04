"""Dropout draws from Philox4x32-10: the published vectors of Random123, and word by word."""

import numpy as np
import pytest

from stapes import ops

MASK = 0xFFFFFFFF


def philox4x32_10(counter, key):
    """Compute four words from four words of counter and two of key, in Python's integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & MASK, (a >> 32) ^ c3 ^ k1, a & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def split(value, words):
    return tuple((value >> (32 * i)) & MASK for i in range(words))


def expected_words(size, seed, offset):
    blocks = [philox4x32_10(split(offset + i, 4), split(seed, 2)) for i in range(-(-size // 4))]
    return np.array(blocks, dtype=np.uint32).reshape(-1)[:size]


def drawn(size, seed, offset):
    """Recover word >> 8 of each element from dropout alone, by bisection over p."""
    x = np.ones(size, dtype=np.float32)
    low = np.zeros(size, dtype=np.int64)
    for bit in reversed(range(24)):
        trial = low + (1 << bit)
        for p in np.unique(trial):
            kept = ops.dropout_fwd(x, float(p) * 2.0**-24, seed=seed, offset=offset) > 0
            low = np.where((trial == p) & kept, trial, low)
    return low


# Random123, tests/kat_vectors, "philox4x32 10"
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_reference_gives_the_published_vectors(counter, key, words):
    assert philox4x32_10(counter, key) == words


def test_operator_draws_the_published_words():
    words = np.array(KNOWN[0][2], dtype=np.int64)
    np.testing.assert_array_equal(drawn(4, seed=0, offset=0), words >> 8)


SEEDS = [0, 1, 0x299F31D0A4093822, 2**64 - 1]
OFFSETS = [0, 3, 2**32 - 2, 0x85A308D3243F6A88, 2**64 - 1]  # carries into every word


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("offset", OFFSETS)
def test_operator_draws_the_words_of_seed_and_offset(seed, offset):
    expected = expected_words(11, seed, offset) >> 8
    np.testing.assert_array_equal(drawn(11, seed, offset), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 3, 4, 63, 64, 65, 1000])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1 - 2.0**-24])
def test_mask_and_scale(dtype, size, p):
    seed, offset = 0xDEADBEEF12345678, 2**32 - 5
    x = np.random.default_rng(0).standard_normal(size).astype(dtype)
    u = (expected_words(size, seed, offset) >> 8) * 2.0**-24
    expected = np.where(u >= p, x * dtype(1 / (1 - p)), dtype(0))
    for function in (ops.dropout_fwd, ops.dropout_bwd):
        out = np.full_like(x, np.nan)
        assert function(x, p, seed=seed, offset=offset, out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_calls_continue_each_other():
    x = np.ones(4 * 50_000, dtype=np.float32)
    whole = ops.dropout_fwd(x, 0.3, seed=9, offset=100)
    half = x.size // 2
    first = ops.dropout_fwd(x[:half], 0.3, seed=9, offset=100)
    second = ops.dropout_fwd(x[half:], 0.3, seed=9, offset=np.array([100 + half // 4]))
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    assert abs(np.mean(whole > 0) - 0.7) < 0.01
