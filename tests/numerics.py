"""Random inputs, and how far a result may be from the float64 reference."""

from __future__ import annotations

import numpy as np

try:
    from ml_dtypes import bfloat16, finfo  # np.finfo that knows bfloat16
except ImportError:  # then nothing is tested in bfloat16
    bfloat16, finfo = None, np.finfo

EPS32 = float(np.finfo(np.float32).eps)

# A result may be off by C * eps * sqrt(reduction length) * scale: rounding errors of a sum add up
# like a random walk. scale is the largest expected value where the caller names none.
# 16-bit results are sums in float32, rounded once.
C = 4.0


def wide(dtype):
    """The dtype of biases, statistics, losses and gradients of weights beside ``dtype``."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def assert_close(got, want, *, length=1, scale=None):
    """``got`` is within tolerance of the float64 ``want``; NaN and infinities in their places."""
    got, want = np.asarray(got), np.asarray(want)
    info = finfo(got.dtype)
    got = np.float64(got)
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    if not finite.any():
        return
    if scale is None:
        scale = np.abs(want[finite]).max()
    eps = np.float64(info.eps)
    limit = C * min(eps, EPS32) * np.sqrt(max(length, 1)) * scale
    if eps > EPS32:
        limit += eps * scale + np.float64(info.smallest_subnormal)
    off = np.abs(got[finite] - want[finite]).max()
    assert off <= limit, f"off by {off:.3g}, allowed {limit:.3g} ({info.dtype})"


def assert_exact(got, want, dtype):
    """``got`` has the dtype and, to the last bit, the values of ``want``, rounded to it."""
    assert got.dtype == dtype, f"dtype {got.dtype}, expected {np.dtype(dtype)}"
    np.testing.assert_array_equal(np.float64(got), np.float64(np.asarray(want).astype(dtype)))


def assert_adjoint(*products):
    """Inner products that are one number in exact arithmetic, each given as (a, b)."""
    values = [np.vdot(np.float64(a), np.float64(b)) for a, b in products]
    a, b = products[0]
    norm = np.linalg.norm(np.float64(a)) * np.linalg.norm(np.float64(b))
    eps = max(np.float64(finfo(x.dtype).eps) for pair in products for x in pair)
    assert np.ptp(values) <= 4 * eps * norm, f"{values} differ, norms' product {norm:.3g}"


class Random:
    """Inputs for tests: normal numbers, and small integers whose sums are exact in any dtype."""

    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)

    def normal(self, shape, dtype=np.float64):
        return self.generator.standard_normal(shape).astype(dtype)

    def integers(self, shape, dtype=np.float64, low=-3, high=3):
        return self.generator.integers(low, high, shape, endpoint=True).astype(dtype)

    def distinct(self, shape, dtype=np.float64):
        """A shuffled range: no two equal, so that a maximum is one place."""
        size = int(np.prod(shape))
        return (self.generator.permutation(size) - size // 2).reshape(shape).astype(dtype)
