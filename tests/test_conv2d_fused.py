from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import reference
from numerics import Random, assert_adjoint, assert_close, assert_exact, wide
from shapes import FUSED_CASES, FusedCase

DEAD = reference.pool.DEAD


def inputs(case, draw, dtype):
    return draw(case.x, dtype), draw(case.w, dtype), draw(case.w[0], wide(dtype))


def check_exact(ops, dtype, case, draw, **precision):
    x, w, b = inputs(case, draw, dtype)
    o = case.fused_options
    for bias in (b, None):
        y, argmax = ops.conv2d_relu_max_pool2d_fwd(x, w, bias, **o, **precision)
        want_y, want_argmax = reference.conv2d_relu_max_pool2d_fwd(x, w, bias, **o)
        assert_exact(y, want_y, dtype)
        assert_exact(argmax, want_argmax, np.uint8)
    dy = draw(y.shape, dtype)
    got = ops.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, **o, **precision)
    want = reference.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, **o)
    dtypes = (dtype, wide(dtype), wide(dtype))
    for a, b, t in zip(got, want, dtypes, strict=True):
        assert_exact(a, b, t)
    none, *without_dx = ops.conv2d_relu_max_pool2d_bwd(
        dy, argmax, x, w, **o, **precision, need_dx=False
    )
    assert none is None
    for a, b in zip(without_dx, want[1:], strict=True):
        assert_exact(a, b, wide(dtype))


@pytest.mark.parametrize("case", FUSED_CASES, ids=str)
def test_exact(ops, dtype, case, random):
    check_exact(ops, dtype, case, random.integers)


PRECISION_CASES = [c for c in FUSED_CASES if c.x[3] > 1 and (c.pool != 2 or c.w[0] > 4)]


@pytest.mark.parametrize("precision", ["fp32_split", "tf32"])
@pytest.mark.parametrize("case", PRECISION_CASES, ids=str)
def test_exact_in_every_precision(ops, case, precision, random):
    """Small integers are exact in TF32 as well."""
    if ops.kernels == "cpu":
        pytest.skip("the CPU computes in fp32 alone")
    check_exact(ops, np.float32, case, random.integers, precision=precision)


def at_chosen(z, argmax, pool):
    """The values of z at the places of argmax, 0 where it says dead."""
    chosen = reference.max_pool2d_bwd(np.ones(argmax.shape), argmax, z.shape, pool)
    mean = reference.avg_pool2d_fwd(np.where(chosen > 0, z, 0), pool)
    return mean * np.prod(reference.windows.pair(pool))


@pytest.mark.parametrize("case", FUSED_CASES, ids=str)
def test_random(ops, dtype, case, random):
    x, w, b = inputs(case, random.normal, dtype)
    o = case.fused_options
    y, argmax = ops.conv2d_relu_max_pool2d_fwd(x, w, b, **o)
    want, _ = reference.conv2d_relu_max_pool2d_fwd(x, w, b, **o)
    length = int(np.prod(case.w[1:]))
    assert_close(y, want, length=length)
    np.testing.assert_array_equal(argmax == DEAD, y == 0)

    # Values may round to the same or change places: the chosen one is as good as the largest.
    z = reference.conv2d_fwd(x, w, b, **case.dense_options)
    assert_close(y, at_chosen(z, argmax, case.pool), length=length)

    dy = random.normal(y.shape, dtype)
    got = ops.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, **o)
    want = reference.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, **o)
    lengths = (int(np.prod(case.w[:3])), max(dy.size // case.w[0], 1), dy.size // case.w[0])
    dtypes = (dtype, wide(dtype), wide(dtype))
    for a, b, t, length in zip(got, want, dtypes, lengths, strict=True):
        assert a.dtype == t
        assert_close(a, b, length=length)


@pytest.mark.parametrize("case", FUSED_CASES, ids=str)
def test_equals_the_operators_it_fuses(ops, dtype, case, random):
    x, w, b = inputs(case, random.integers, dtype)
    z = ops.conv2d_fwd(x, w, b, **case.dense_options, activation="relu")
    want, place = ops.max_pool2d_fwd(z, case.pool)
    y, argmax = ops.conv2d_relu_max_pool2d_fwd(x, w, b, **case.fused_options)
    assert_exact(y, want, dtype)
    alive = argmax != DEAD
    if dtype == wide(dtype):
        np.testing.assert_array_equal(argmax[alive], place[alive])
    else:  # unfused, values that round to the same are equal
        assert_exact(y, at_chosen(np.float64(z), argmax, case.pool).astype(dtype), dtype)

    # The pooling's own backward reads the dead mark in the same way.
    dy = random.integers(y.shape, dtype)
    dz = ops.max_pool2d_bwd(dy, argmax, z.shape, case.pool)
    dx, dw, db = ops.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, **case.fused_options)
    assert_exact(dx, ops.conv2d_dgrad(dz, w, x.shape, **case.dense_options), dtype)
    assert_exact(dw, ops.conv2d_wgrad(dz, x, w.shape, **case.dense_options), wide(dtype))
    assert_exact(db, ops.conv2d_bgrad(dz), wide(dtype))


BIG_CASES = [
    FusedCase("first_c1", (8, 64, 64, 1), (32, 3, 3, 1), padding="same"),
    FusedCase("first_c3", (8, 64, 64, 3), (32, 3, 3, 3), padding="same"),
    FusedCase("conv2", (8, 32, 32, 32), (64, 3, 3, 32), padding="same"),
    FusedCase("odd", (4, 31, 29, 33), (65, 3, 3, 33), padding=1),
]


@pytest.mark.parametrize("case", BIG_CASES, ids=str)
def test_adjoint(ops, dtype, case, random):
    if not ops.fast:
        pytest.skip("too large for the emulator")
    x, w, b = inputs(case, random.normal, dtype)
    y, argmax = ops.conv2d_relu_max_pool2d_fwd(x, w, b, **case.fused_options)
    dy = random.normal(y.shape, dtype)
    dx, dw, db = ops.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, **case.fused_options)
    # Where the choice of maxima is fixed, y is linear in (x) and in (w); the bias takes its share.
    without_bias = np.where(argmax == DEAD, 0, y - b)
    assert_adjoint((dy, without_bias), (dx, x), (dw, w))
    assert_adjoint((dy, np.where(argmax == DEAD, 0, np.broadcast_to(b, y.shape))), (db, b))


@pytest.mark.parametrize("channels", [1, 3, 8, 32])
def test_constant_image_takes_the_first_place(ops, dtype, channels, random):
    """All four are one number, however it is computed."""
    x = np.full((1, 8, 10, channels), 0.7, dtype)
    w = np.abs(random.normal((24, 3, 3, channels), dtype))
    y, argmax = ops.conv2d_relu_max_pool2d_fwd(x, w)
    assert (y > 0).all()
    assert_exact(argmax, np.zeros(y.shape), np.uint8)


def test_gradients_where_most_outputs_are_far_from_the_image(ops, dtype, random):
    """Neither memory nor time grows with stride and padding."""
    far = {"stride": 2**26, "padding": 2**26}
    x, w = random.integers((2, 5, 4, 16), dtype), random.integers((8, 3, 3, 16), dtype)
    z = ops.conv2d_fwd(x, w, **far)
    _, argmax = ops.conv2d_relu_max_pool2d_fwd(x, w, **far)
    dy = random.integers(argmax.shape, dtype)
    dz = ops.max_pool2d_bwd(dy, argmax, z.shape, 2)
    dx, dw, _ = ops.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, **far)
    assert_exact(dx, ops.conv2d_dgrad(dz, w, x.shape, **far), dtype)
    assert_exact(dw, ops.conv2d_wgrad(dz, x, w.shape, **far), wide(dtype))


def test_batch_is_its_images(ops, dtype, random):
    """On a GPU big enough for the largest tiles, of which one image has too few."""
    case = FusedCase("", (5, 8, 9, 8), (16, 3, 3, 8), padding=1)
    if ops.name == "cuda":
        case = FusedCase("", (64, 32, 32, 64), (128, 3, 3, 64), padding=1)
    x, w, b = inputs(case, random.integers, dtype)
    o = case.fused_options
    y, argmax = ops.conv2d_relu_max_pool2d_fwd(x, w, b, **o)
    dy = random.integers(y.shape, dtype)
    dx, dw, _ = ops.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, **o)
    sum_of_dw = np.zeros(w.shape)
    for i in range(case.x[0]):
        own = slice(i, i + 1)
        alone = ops.conv2d_relu_max_pool2d_fwd(x[own], w, b, **o)
        assert_exact(y[own], alone[0], dtype)
        assert_exact(argmax[own], alone[1], np.uint8)
        back = ops.conv2d_relu_max_pool2d_bwd(dy[own], argmax[own], x[own], w, **o)
        assert_exact(dx[own], back[0], dtype)
        sum_of_dw += back[1]
    assert_exact(dw, sum_of_dw, wide(dtype))


@st.composite
def fused_cases(draw):
    small = st.integers(1, 3)
    x = (draw(st.integers(0, 3)), draw(st.integers(1, 11)), draw(st.integers(1, 11)))
    c, k = draw(st.sampled_from([1, 2, 3, 5, 8])), draw(st.sampled_from([1, 3, 8, 9, 16, 20]))
    kernel = draw(st.tuples(small, small))
    padding = draw(st.one_of(st.sampled_from(["same", "valid"]), st.integers(0, 3)))
    stride = draw(small)
    pool = draw(st.one_of(st.just(2), small, st.tuples(small, small)))
    windows = reference.windows.Windows(x[1:], kernel, stride, padding)
    assume(min(windows.output_size) >= 1)
    pooled = reference.windows.Windows(windows.output_size, pool, pool)
    assume(min(pooled.output_size) >= 1)
    return FusedCase("drawn", (*x, c), (k, *kernel, c), stride, padding, pool=pool)


@given(case=fused_cases(), seed=st.integers(0, 1000))
def test_drawn(ops, dtype, case, seed):
    check_exact(ops, dtype, case, Random(seed).integers)


def identity(dtype):
    return np.ones((1, 1, 1, 1), dtype)


def test_dead_where_the_largest_is_not_above_zero(ops, dtype):
    x = np.array([[-1, -2, 0, -3], [-4, -5, -6, 0], [-1, 2, 3, 3], [2, -1, 0, 3]], dtype)
    y, argmax = ops.conv2d_relu_max_pool2d_fwd(x[None, :, :, None], identity(dtype))
    assert_exact(y[0, :, :, 0], [[0, 0], [2, 3]], dtype)
    assert_exact(argmax[0, :, :, 0], [[DEAD, DEAD], [1, 0]], np.uint8)


def test_nan_is_never_dead(ops, dtype):
    nan = np.nan
    x = np.array([[-1, nan, nan, -3], [nan, -5, 9, nan]], dtype)
    y, argmax = ops.conv2d_relu_max_pool2d_fwd(x[None, :, :, None], identity(dtype))
    assert_exact(y[0, :, :, 0], [[nan, nan]], dtype)
    assert_exact(argmax[0, :, :, 0], [[1, 0]], np.uint8)


@pytest.mark.parametrize("c", [1, 3, 5, 8])
def test_places_that_no_window_has_count_as_dead(ops, dtype, c, random):
    if ops.kernels == "cpu":
        pytest.skip("the CPU refuses them")
    x, w = random.normal((2, 8, 8, c), dtype), random.normal((8, 3, 3, c), dtype)
    dy = random.normal((2, 4, 4, 8), dtype)
    dead = random.integers(dy.shape, np.uint8, low=0, high=4)
    wrong = np.where(dead < 4, dead, random.integers(dy.shape, np.uint8, low=4, high=254))
    dead[dead == 4] = DEAD
    got = ops.conv2d_relu_max_pool2d_bwd(dy, wrong.astype(np.uint8), x, w, padding=1)
    want = ops.conv2d_relu_max_pool2d_bwd(dy, dead, x, w, padding=1)
    for a, b in zip(got, want, strict=True):
        assert_exact(a, b, b.dtype)


def test_everything_dead_gives_zero_gradients(ops, dtype, random):
    x, w = random.normal((2, 8, 8, 4), dtype), random.normal((8, 3, 3, 4), dtype)
    dy, argmax = random.normal((2, 4, 4, 8), dtype), np.full((2, 4, 4, 8), DEAD, np.uint8)
    dx, dw, db = ops.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, padding=1)
    assert_exact(dx, np.zeros(x.shape), dtype)
    assert_exact(dw, np.zeros(w.shape), wide(dtype))
    assert_exact(db, np.zeros(8), wide(dtype))


@pytest.mark.parametrize("pool", [(16, 16), (1, 256), (2**31, 2**31)])
def test_window_of_more_than_255_places(ops, random, pool):
    """255 means dead, so that it cannot be a place as well."""
    x, w = random.normal((1, 20, 260, 1), np.float32), random.normal((2, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"conv2d_relu_max_pool2d_fwd: pool .*255"):
        ops.conv2d_relu_max_pool2d_fwd(x, w, pool=pool)
