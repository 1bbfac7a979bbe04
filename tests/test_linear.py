from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from numerics import Random, assert_adjoint, assert_close, assert_exact, wide
from shapes import TAILS

# (N, in, out)
CASES = [
    (1, 1, 1),
    (2, 8, 16),
    (32, 64, 10),
    (7, 300, 33),
    (5, 4, 200),
    (1, 1000, 8),
    (3, 1024, 36),
    (0, 5, 3),
    (0, 3, 4),
    (0, 1, 4),
    *((n, c, k) for n, c, k in zip(TAILS, TAILS[::-1], (5, 1, 33, 3, 17, 7), strict=True)),
]

# Weights so large that the CPU goes over them in blocks; rows, vectors and blocks left over.
LARGE_CASES = [
    (1, 16384, 16),
    (7, 1030, 257),
    (31, 2051, 130),
    (256, 1024, 256),
    (257, 1024, 256),
]


def check(ops, dtype, sizes, draw, compare):
    """``compare(got, want, length of the sums, dtype of the result)``"""
    n, c, k = sizes
    x, w, dy = draw((n, c), dtype), draw((k, c), dtype), draw((n, k), dtype)
    for bias in (None, draw(k, wide(dtype))):
        want = reference.linear_fwd(x, w, bias)
        compare(ops.linear_fwd(x, w, bias), want, c, dtype)
        compare(ops.linear_fwd(x, w, bias, activation="relu"), np.maximum(want, 0), c, dtype)
    compare(ops.linear_dgrad(dy, w), reference.linear_dgrad(dy, w), k, dtype)
    compare(ops.linear_wgrad(dy, x), reference.linear_wgrad(dy, x), n, wide(dtype))
    compare(ops.linear_bgrad(dy), reference.linear_bgrad(dy), n, wide(dtype))


def exact(got, want, _length, dtype):
    assert_exact(got, want, dtype)


@pytest.mark.parametrize("sizes", CASES, ids=str)
def test_exact(ops, dtype, sizes, random):
    check(ops, dtype, sizes, random.integers, exact)


@pytest.mark.parametrize("sizes", LARGE_CASES, ids=str)
def test_exact_large(ops, dtype, sizes, random):
    if not ops.fast:
        pytest.skip("big shapes take minutes here")
    check(ops, dtype, sizes, random.integers, exact)


@pytest.mark.parametrize("sizes", CASES, ids=str)
def test_random(ops, dtype, sizes, random):
    def compare(got, want, length, result_dtype):
        assert got.dtype == result_dtype
        assert_close(got, want, length=length)

    check(ops, dtype, sizes, random.normal, compare)


@pytest.mark.parametrize("sizes", [(64, 4096, 130), *LARGE_CASES[1:]], ids=str)
def test_adjoint(ops, dtype, sizes, random):
    if not ops.fast:
        pytest.skip("big shapes take minutes here")
    n, c, k = sizes
    x, w, dy = (random.normal(s, dtype) for s in [(n, c), (k, c), (n, k)])
    y, dx, dw = ops.linear_fwd(x, w), ops.linear_dgrad(dy, w), ops.linear_wgrad(dy, x)
    assert_adjoint((dy, y), (dx, x), (dw, w))


@given(
    sizes=st.tuples(st.integers(0, 20), st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 1000),
)
def test_drawn(ops, dtype, sizes, seed):
    check(ops, dtype, sizes, Random(seed).integers, exact)
