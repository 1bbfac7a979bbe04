"""Batch normalisation, ReLU and max pooling in one pass."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from numerics import assert_close, assert_exact, wide
from test_batch_norm import inputs

CASES = [  # x, pool
    ((4, 6, 8, 8), 2),
    ((2, 5, 7, 16), 2),  # a row and a column left over
    ((3, 7, 1, 17), 1),
    ((1, 4, 4, 1), 2),
    ((2, 3, 3, 33), 1),
    ((2, 9, 8, 3), (3, 2)),
    ((2, 6, 7, 32), (1, 2)),
    ((1, 2, 3, 1032), 2),  # more channels than a block of CUDA's takes
    ((4, 16, 16, 4), 2),
    ((1, 41, 25, 72), 2),
    ((2, 20, 40, 64), 1),
    ((1, 49, 34, 24), 2),  # chunks of windows
    ((3, 19, 23, 2), (19, 13)),
    ((1, 2, 97, 5), (2, 1)),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "pool"), CASES, ids=str)
def test_against_reference(ops, dtype, shape, pool, training, random):
    x, gamma, beta, *running = inputs(shape, random, dtype)
    count = x.size // shape[-1]
    options = {"pool": pool, "training": training, "momentum": 0.3}
    want_running = [r.astype(np.float64) for r in running]
    want = reference.batch_norm2d_relu_max_pool2d_fwd(x, gamma, beta, *want_running, **options)
    got = ops.batch_norm2d_relu_max_pool2d_fwd(x, gamma, beta, *running, **options)
    y, argmax, mean, rstd = got
    assert y.dtype == dtype
    assert argmax.dtype == np.uint8
    scale = max(1, np.abs(want[3]).max()) * 4
    for a, b in zip((y, mean, rstd, *running), (want[0], *want[2:], *want_running), strict=True):
        assert a is y or a.dtype == wide(dtype)
        assert_close(a, b, length=count, scale=scale)
    assert_places(x, gamma, beta, got, pool, dtype)

    dy = random.normal(y.shape, dtype)
    options = {"pool": pool, "training": training}
    got = ops.batch_norm2d_relu_max_pool2d_bwd(dy, argmax, x, gamma, mean, rstd, **options)
    want = reference.batch_norm2d_relu_max_pool2d_bwd(dy, argmax, x, gamma, mean, rstd, **options)
    assert got[0].dtype == dtype
    for a, b in zip(got, want, strict=True):
        assert a is got[0] or a.dtype == wide(dtype)
        assert_close(a, b, length=count, scale=max(scale, np.abs(b).max()))


def assert_places(x, gamma, beta, got, pool, dtype):
    """The place names a value as large as the largest, but for rounding, or that it is dead."""
    y, argmax, mean, rstd = (np.asarray(a) for a in got)
    z = (np.float64(x) - mean) * rstd * gamma + beta
    N, P, Q, C = y.shape
    h, w = (pool, pool) if isinstance(pool, int) else pool
    windows = z[:, : P * h, : Q * w].reshape(N, P, h, Q, w, C).transpose(0, 1, 3, 5, 2, 4)
    windows = windows.reshape(N, P, Q, C, h * w)
    place = np.minimum(argmax, h * w - 1).astype(int)[..., None]
    named = np.take_along_axis(windows, place, -1)[..., 0]
    dead = argmax == 255
    assert ((argmax < h * w) | dead).all(), "argmax is no place of the window"
    assert (y[dead] == 0).all()
    want = np.where(dead, windows.max(-1), named)
    assert_close(np.maximum(want, 0), windows.max(-1).clip(0), length=64, scale=np.abs(z).max())
    assert_close(y, np.maximum(want, 0).astype(dtype), length=64, scale=np.abs(z).max())


@pytest.mark.parametrize("pool", [1, 2, (1, 2)], ids=str)
def test_is_what_the_parts_give(ops, dtype, pool, random):
    x, gamma, beta, *running = inputs((3, 8, 10, 24), random, dtype)
    fresh = [r.copy() for r in running]
    z, mean, rstd = ops.batch_norm2d_fwd(x, gamma, beta, *fresh, training=True)
    want, place = ops.max_pool2d_fwd(ops.relu_fwd(z), pool)
    y, argmax, *statistics = ops.batch_norm2d_relu_max_pool2d_fwd(
        x, gamma, beta, *running, training=True, pool=pool
    )
    for a, b in zip((y, *statistics, *running), (want, mean, rstd, *fresh), strict=True):
        assert_close(a, b, length=4)
    same = argmax == np.where(want > 0, place, 255)
    assert same.mean() > (0.999 if dtype == wide(dtype) else 0.95)  # z in 16 bits has equal values


@pytest.mark.parametrize("pool", [1, 2], ids=str)
def test_equal_values_take_the_first_place(ops, dtype, pool):
    x = np.full((2, 4, 4, 9), 7, dtype)
    one, zero = np.ones(9, wide(dtype)), np.zeros(9, wide(dtype))
    for beta, place in ((one, 0), (zero, 255), (-one, 255)):
        y, argmax, *_ = ops.batch_norm2d_relu_max_pool2d_fwd(
            x, one, beta, zero.copy(), one.copy(), training=True, pool=pool
        )
        assert_exact(y, np.maximum(beta, 0) * np.ones(y.shape, dtype), dtype)
        assert_exact(argmax, np.full(y.shape, place), np.uint8)


@pytest.mark.parametrize("pool", [1, 2], ids=str)
def test_nan_stays_in_its_channel(ops, dtype, pool, random):
    x, gamma, beta, *running = inputs((2, 4, 4, 11), random, dtype)
    options = {"training": True, "pool": pool}
    fresh = [r.copy() for r in running]
    clean = ops.batch_norm2d_relu_max_pool2d_fwd(x, gamma, beta, *fresh, **options)
    x[0, 0, 0, 4] = np.nan
    dirty = ops.batch_norm2d_relu_max_pool2d_fwd(x, gamma, beta, *running, **options)
    others = np.arange(11) != 4
    for a, b in zip(dirty, clean, strict=True):
        assert a.dtype == np.uint8 or np.isnan(a[..., 4]).all()
        assert_exact(a[..., others], b[..., others], b.dtype)
    assert (dirty[1][..., 4] == 0).all()


def test_places_in_evaluation(ops, dtype):
    """With these statistics nothing changes before ReLU."""
    nan = np.nan
    x = [[-1, nan, nan, -3, -1, 0, 2, 3], [nan, -5, 9, nan, -2, -3, 3, -1]]
    one, zero = np.ones(1, wide(dtype)), np.zeros(1, wide(dtype))
    y, argmax, *_ = ops.batch_norm2d_relu_max_pool2d_fwd(
        np.array(x, dtype)[None, ..., None], one, zero, zero, one, training=False, eps=0.0
    )
    assert_exact(y[0, :, :, 0], [[nan, nan, 0, 3]], dtype)
    assert_exact(argmax[0, :, :, 0], [[1, 0, 255, 1]], np.uint8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("pool", "channels"), [(1, 8), (2, 16), (2, 5), ((3, 2), 8)], ids=str)
def test_places_that_no_window_has_count_as_dead(ops, dtype, pool, channels, training, random):
    if ops.kernels == "cpu":
        pytest.skip("the CPU refuses them")
    x, gamma, _, mean, rstd = inputs((2, 6, 6, channels), random, dtype)
    h, w = (pool, pool) if isinstance(pool, int) else pool
    dy = random.normal((2, 6 // h, 6 // w, channels), dtype)
    argmax = random.integers(dy.shape, np.uint8, low=0, high=h * w)
    wrong = np.where(argmax < h * w, argmax, random.integers(dy.shape, np.uint8, h * w, 254))
    argmax[argmax == h * w] = 255
    options = {"pool": pool, "training": training}
    args = x, gamma, mean, rstd
    got = ops.batch_norm2d_relu_max_pool2d_bwd(dy, wrong.astype(np.uint8), *args, **options)
    want = ops.batch_norm2d_relu_max_pool2d_bwd(dy, argmax, *args, **options)
    for a, b in zip(got, want, strict=True):
        assert_exact(a, b, b.dtype)


def test_gradient_in_evaluation_does_not_read_x(ops, dtype, random):
    x, gamma, _, mean, rstd = inputs((2, 5, 4, 16), random, dtype)
    dy, argmax = random.normal((2, 2, 2, 16), dtype), np.full((2, 2, 2, 16), 3, np.uint8)
    args = gamma, mean, rstd
    want, *_ = ops.batch_norm2d_relu_max_pool2d_bwd(dy, argmax, x, *args, training=False)
    x = np.full(x.shape, np.nan, dtype)
    got, *_ = ops.batch_norm2d_relu_max_pool2d_bwd(dy, argmax, x, *args, training=False)
    assert_exact(got, want, dtype)


def test_empty_batch(ops, dtype):
    x = np.empty((0, 4, 6, 5), dtype)
    gamma = np.ones(5, wide(dtype))
    y, argmax, mean, rstd = ops.batch_norm2d_relu_max_pool2d_fwd(
        x, gamma, gamma, gamma, gamma, training=False
    )
    assert y.shape == argmax.shape == (0, 2, 3, 5)
    dx, dgamma, dbeta = ops.batch_norm2d_relu_max_pool2d_bwd(y, argmax, x, gamma, mean, rstd)
    assert dx.shape == x.shape
    assert_exact(dgamma, np.zeros(5), wide(dtype))
    assert_exact(dbeta, np.zeros(5), wide(dtype))
