from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import reference
from numerics import Random, assert_adjoint, assert_close, assert_exact
from shapes import POOL_CASES, PoolCase

DEAD = reference.pool.DEAD


def check_max(ops, dtype, case, x, dy_of):
    y, argmax = ops.max_pool2d_fwd(x, case.kernel, **case.options)
    want_y, want_argmax = reference.max_pool2d_fwd(x, case.kernel, **case.options)
    assert_exact(y, want_y, dtype)
    assert_exact(argmax, want_argmax, want_argmax.dtype)
    dy = dy_of(y.shape, dtype)
    dx = ops.max_pool2d_bwd(dy, argmax, x.shape, case.kernel, **case.options)
    want = reference.max_pool2d_bwd(dy, argmax, x.shape, case.kernel, **case.options)
    assert_exact(dx, want, dtype)


@pytest.mark.parametrize("case", POOL_CASES, ids=str)
def test_max_exact(ops, dtype, case, random):
    check_max(ops, dtype, case, random.distinct(case.x, dtype), random.integers)
    check_max(ops, dtype, case, random.integers(case.x, dtype), random.integers)  # many ties
    below_zero = random.integers(case.x, dtype, low=-9, high=-1)
    check_max(ops, dtype, case, below_zero, random.integers)  # padding is never the maximum


@pytest.mark.parametrize("case", POOL_CASES, ids=str)
def test_max_with_nan_and_infinities(ops, dtype, case, random):
    x = random.normal(case.x, dtype)
    kind = random.integers(case.x, np.int64, low=0, high=9)
    x[kind == 0], x[kind == 1], x[kind == 2] = np.nan, -np.inf, np.inf
    check_max(ops, dtype, case, x, random.integers)


def test_max_of_minus_infinity_alone(ops, dtype):
    x = np.full((1, 3, 3, 2), -np.inf, dtype)
    y, argmax = ops.max_pool2d_fwd(x, 3, stride=1, padding=1)
    assert_exact(y, x, dtype)
    want = np.array([[4, 3, 3], [1, 0, 0], [1, 0, 0]])  # the first place that is not padding
    assert_exact(argmax[0], np.stack([want, want], axis=-1), np.uint8)


def test_max_bwd_of_overlapping_windows_adds_up(ops, dtype):
    x = np.zeros((1, 3, 3, 1), dtype)
    x[0, 1, 1, 0] = 5
    y, argmax = ops.max_pool2d_fwd(x, 2, stride=1)
    assert_exact(argmax[0, :, :, 0], [[3, 2], [1, 0]], np.uint8)
    dx = ops.max_pool2d_bwd(np.ones_like(y), argmax, x.shape, 2, stride=1)
    want = np.zeros(x.shape)
    want[0, 1, 1, 0] = 4
    assert_exact(dx, want, dtype)


def test_max_bwd_reads_the_dead_mark(ops, dtype, random):
    dy = random.integers((2, 3, 4, 5), dtype)
    argmax = random.integers((2, 3, 4, 5), np.uint8, low=0, high=3)
    argmax[random.integers(argmax.shape, np.int64, low=0, high=1) == 0] = DEAD
    dx = ops.max_pool2d_bwd(dy, argmax, (2, 6, 9, 5), 2)
    assert_exact(dx, reference.max_pool2d_bwd(dy, argmax, (2, 6, 9, 5), 2), dtype)


@pytest.mark.parametrize("kernel", [2, 16], ids=["uint8", "int32"])
def test_max_bwd_of_a_wrong_argmax_stays_inside(ops, dtype, kernel, random):
    """CUDA's kernels cannot refuse it without waiting; they take it for no place of the window."""
    if ops.kernels == "cpu":
        pytest.skip("the CPU refuses it")
    shape, options = (2, 18, 19, 8), {"stride": kernel // 2, "padding": kernel // 2}
    argmax = ops.max_pool2d_fwd(random.normal(shape, dtype), kernel, **options)[1]
    least, most = np.iinfo(argmax.dtype).min, np.iinfo(argmax.dtype).max
    argmax = random.integers(argmax.shape, argmax.dtype, low=least, high=most)
    argmax[0] %= kernel**2 + 1  # many are places, also in the padding
    dy = random.integers(argmax.shape, dtype)
    want = reference.max_pool2d_bwd(dy, argmax, shape, kernel, **options)
    assert_exact(ops.max_pool2d_bwd(dy, argmax, shape, kernel, **options), want, dtype)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("case", POOL_CASES, ids=str)
def test_avg_random(ops, dtype, case, count_include_pad, random):
    o = {**case.options, "count_include_pad": count_include_pad}
    x = random.normal(case.x, dtype)
    y = ops.avg_pool2d_fwd(x, case.kernel, **o)
    length = np.prod(reference.windows.pair(case.kernel))
    assert y.dtype == dtype
    assert_close(y, reference.avg_pool2d_fwd(x, case.kernel, **o), length=length)
    dy = random.normal(y.shape, dtype)
    dx = ops.avg_pool2d_bwd(dy, x.shape, case.kernel, **o)
    assert_close(dx, reference.avg_pool2d_bwd(dy, x.shape, case.kernel, **o), length=length)


@pytest.mark.parametrize("kernel", [1, 2, 4, (2, 4), (8, 1)], ids=str)
def test_avg_exact(ops, dtype, kernel, random):
    """Divisors are powers of two, so nothing is rounded."""
    x = random.integers((2, 9, 8, 5), dtype)
    y = ops.avg_pool2d_fwd(x, kernel)
    assert_exact(y, reference.avg_pool2d_fwd(x, kernel), dtype)
    dy = random.integers(y.shape, dtype)
    want = reference.avg_pool2d_bwd(dy, x.shape, kernel)
    assert_exact(ops.avg_pool2d_bwd(dy, x.shape, kernel), want, dtype)


@pytest.mark.parametrize(
    "shape", [(2, 4, 4, 3), (3, 2, 8, 17), (1, 1, 1, 5), (0, 4, 4, 3)], ids=str
)
def test_global_avg_exact(ops, dtype, shape, random):
    x, dy = random.integers(shape, dtype), random.integers((shape[0], shape[3]), dtype)
    assert_exact(ops.global_avg_pool2d_fwd(x), reference.global_avg_pool2d_fwd(x), dtype)
    want = reference.global_avg_pool2d_bwd(dy, shape)
    assert_exact(ops.global_avg_pool2d_bwd(dy, shape), want, dtype)


# CUDA's kernel adds up pieces of 1024 pixels, by blocks of at most 256 threads.
GLOBAL = [
    (2, 5, 7, 33),
    (2, 64, 50, 3),
    (1, 32, 32, 2),
    (1, 41, 25, 8),
    (1, 64, 33, 72),
    (2, 1, 2, 2056),
]


@pytest.mark.parametrize("shape", GLOBAL, ids=str)
def test_global_avg_random(ops, dtype, shape, random):
    x, dy = random.normal(shape, dtype), random.normal((shape[0], shape[3]), dtype)
    length = shape[1] * shape[2]
    y, want = ops.global_avg_pool2d_fwd(x), reference.global_avg_pool2d_fwd(x)
    assert_close(y, want, length=length, scale=1.0)
    assert_close(ops.global_avg_pool2d_bwd(dy, shape), reference.global_avg_pool2d_bwd(dy, shape))


def test_adjoint(ops, dtype, random):
    x = random.normal((8, 64, 63, 24) if ops.fast else (2, 20, 21, 24), dtype)
    o = {"stride": 2, "padding": 1}
    y, argmax = ops.max_pool2d_fwd(x, 3, **o)
    dy = random.normal(y.shape, dtype)
    assert_adjoint((dy, y), (ops.max_pool2d_bwd(dy, argmax, x.shape, 3, **o), x))
    y = ops.avg_pool2d_fwd(x, 3, **o)
    assert_adjoint((dy, y), (ops.avg_pool2d_bwd(dy, x.shape, 3, **o), x))
    y = ops.global_avg_pool2d_fwd(x)
    dy = random.normal(y.shape, dtype)
    assert_adjoint((dy, y), (ops.global_avg_pool2d_bwd(dy, x.shape), x))


@st.composite
def pool_cases(draw):
    x = (draw(st.integers(0, 3)), draw(st.integers(1, 11)), draw(st.integers(1, 11)))
    c = draw(st.sampled_from([1, 2, 3, 7, 8, 16, 19]))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    half = [st.integers(0, k // 2) for k in kernel]
    asymmetric = st.tuples(st.tuples(half[0], half[0]), st.tuples(half[1], half[1]))
    padding = draw(st.one_of(st.just(0), st.just("same"), st.tuples(*half), asymmetric))
    stride = draw(st.one_of(st.none(), st.integers(1, 4), st.tuples(*[st.integers(1, 4)] * 2)))
    windows = reference.pool.windows_of_pool(x[1:], kernel, stride, padding)
    assume(min(windows.output_size) >= 1)
    return PoolCase("drawn", (*x, c), kernel, {"stride": stride, "padding": padding})


@given(case=pool_cases(), seed=st.integers(0, 1000))
def test_drawn(ops, dtype, case, seed):
    random = Random(seed)
    check_max(ops, dtype, case, random.integers(case.x, dtype), random.integers)
    for count_include_pad in (True, False):
        o = {**case.options, "count_include_pad": count_include_pad}
        x = random.normal(case.x, dtype)
        want = reference.avg_pool2d_fwd(x, case.kernel, **o)
        assert_close(ops.avg_pool2d_fwd(x, case.kernel, **o), want, length=25, scale=1.0)


def test_bwd_of_no_images_takes_no_memory(ops, dtype):
    """The width alone would be 48 GiB of scratch."""
    shape = (0, 1, 2**31 - 1, 1)
    dy = np.empty((0, 1, 2**30 - 1, 1), dtype)
    assert (
        ops.max_pool2d_bwd(dy, np.empty(dy.shape, np.uint8), shape, (1, 3), stride=2).shape == shape
    )
    assert ops.avg_pool2d_bwd(dy, shape, (1, 3), stride=2).shape == shape
