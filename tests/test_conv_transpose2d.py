from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import reference
from numerics import Random, assert_adjoint, assert_close, assert_exact, wide
from shapes import TRANSPOSE_CASES, TransposeCase


def check(ops, dtype, case, draw, compare):
    """``compare(got, want, length of the sums, dtype of the result)``"""
    x, w, b = draw(case.x, dtype), draw(case.w, dtype), draw(case.w[3], wide(dtype))
    o = case.options
    taps, pixels = case.w[1] * case.w[2], case.x[0] * case.x[1] * case.x[2]
    for bias in (None, b):
        want = reference.conv_transpose2d_fwd(x, w, bias, **o)
        compare(ops.conv_transpose2d_fwd(x, w, bias, **o), want, taps * case.w[0], dtype)
    dy = draw(want.shape, dtype)
    want = reference.conv_transpose2d_dgrad(dy, w, x.shape, **o)
    compare(ops.conv_transpose2d_dgrad(dy, w, x.shape, **o), want, taps * case.w[3], dtype)
    want = reference.conv_transpose2d_wgrad(dy, x, w.shape, **o)
    compare(ops.conv_transpose2d_wgrad(dy, x, w.shape, **o), want, pixels, wide(dtype))


def exact(got, want, _length, dtype):
    assert_exact(got, want, dtype)


@pytest.mark.parametrize("case", TRANSPOSE_CASES, ids=str)
def test_exact(ops, dtype, case, random):
    check(ops, dtype, case, random.integers, exact)


@pytest.mark.parametrize("case", TRANSPOSE_CASES, ids=str)
def test_random(ops, dtype, case, random):
    def compare(got, want, length, result_dtype):
        assert got.dtype == result_dtype
        assert_close(got, want, length=length)

    check(ops, dtype, case, random.normal, compare)


def test_adjoint(ops, dtype, random):
    if not ops.fast:
        pytest.skip("big shapes take minutes here")
    x, w = random.normal((4, 16, 17, 32), dtype), random.normal((32, 4, 4, 24), dtype)
    options = {"stride": 2, "padding": 1}
    y = ops.conv_transpose2d_fwd(x, w, **options)
    assert y.shape == (4, 32, 34, 24)
    dy = random.normal(y.shape, dtype)
    dx = ops.conv_transpose2d_dgrad(dy, w, x.shape, **options)
    dw = ops.conv_transpose2d_wgrad(dy, x, w.shape, **options)
    assert_adjoint((dy, y), (dx, x), (dw, w))


@st.composite
def transpose_cases(draw):
    size = st.integers(1, 4)
    x = (draw(st.integers(0, 2)), draw(size), draw(size), draw(st.sampled_from([1, 3, 8])))
    w = (x[3], draw(size), draw(size), draw(st.sampled_from([1, 4, 7, 16])))
    stride = draw(st.tuples(size, size))
    options = {
        "stride": stride,
        "padding": draw(st.integers(0, 2)),
        "output_padding": tuple(draw(st.integers(0, s - 1)) for s in stride),
    }
    assume(min(reference.conv.transposed_shape(x, w, **options)[1:3]) >= 1)
    return TransposeCase("drawn", x, w, options)


@given(case=transpose_cases(), seed=st.integers(0, 1000))
def test_drawn(ops, dtype, case, seed):
    check(ops, dtype, case, Random(seed).integers, exact)


def test_undoes_the_shape_of_a_strided_convolution(ops, dtype):
    y = ops.conv_transpose2d_fwd(
        np.zeros((1, 5, 5, 2), dtype), np.zeros((2, 3, 3, 3), dtype), stride=2, padding=1
    )
    assert y.shape == (1, 9, 9, 3)
