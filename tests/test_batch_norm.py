from __future__ import annotations

import numpy as np
import pytest

import reference
from numerics import assert_close, assert_exact, finfo, wide

SHAPES = [
    (4, 5, 6, 8),
    (2, 1, 1, 3),
    (3, 7, 1, 17),
    (1, 4, 4, 1),
    (2, 3, 3, 33),
    (64, 2, 2, 5),
    (1, 1, 2, 1032),  # more channels than a block of CUDA's takes, and fewer rows
    (4, 16, 16, 4),  # the most rows that one block of CUDA's takes
    (1, 41, 25, 72),  # one more: chunks of rows, groups of channels
    (3, 19, 23, 2),
]


def inputs(shape, random, dtype):
    c, per_channel = shape[-1], wide(dtype)
    gamma, beta = random.normal(c, per_channel), random.normal(c, per_channel)
    running = random.normal(c, per_channel), random.normal(c, per_channel) ** 2
    return random.normal(shape, dtype), gamma, beta, running[0], running[1] + per_channel.type(0.1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_training(ops, dtype, shape, random):
    x, gamma, beta, *running = inputs(shape, random, dtype)
    count = x.size // shape[-1]
    want_running = [r.astype(np.float64) for r in running]
    want = reference.batch_norm2d_fwd(x, gamma, beta, *want_running, training=True, momentum=0.3)
    got = ops.batch_norm2d_fwd(x, gamma, beta, *running, training=True, momentum=0.3)
    scale = max(1, np.abs(want[2]).max()) * 4
    assert got[0].dtype == dtype
    for a, b in zip((*got, *running), (*want, *want_running), strict=True):
        assert a is got[0] or a.dtype == wide(dtype)
        assert_close(a, b, length=count, scale=scale)

    dy = random.normal(shape, dtype)
    _, mean, rstd = got
    got = ops.batch_norm2d_bwd(dy, x, gamma, mean, rstd)
    want = reference.batch_norm2d_bwd(dy, x, gamma, mean, rstd)
    assert got[0].dtype == dtype
    for a, b in zip(got, want, strict=True):
        assert a is got[0] or a.dtype == wide(dtype)
        assert_close(a, b, length=count, scale=max(scale, np.abs(b).max()))


@pytest.mark.parametrize("shape", [*SHAPES, (1, 1, 1, 4), (0, 3, 3, 4)], ids=str)
def test_evaluation(ops, dtype, shape, random):
    x, gamma, beta, *running = inputs(shape, random, dtype)
    kept = [r.copy() for r in running]
    want = reference.batch_norm2d_fwd(x, gamma, beta, *running, training=False, eps=1e-3)
    y, mean, rstd = ops.batch_norm2d_fwd(x, gamma, beta, *running, training=False, eps=1e-3)
    assert_close(y, want[0], length=4)
    assert_exact(mean, running[0], wide(dtype))
    assert_close(rstd, want[2])
    for now, before in zip(running, kept, strict=True):
        assert_exact(now, before, wide(dtype))

    dy = random.normal(shape, dtype)
    got = ops.batch_norm2d_bwd(dy, x, gamma, mean, rstd, training=False)
    want = reference.batch_norm2d_bwd(dy, x, gamma, mean, rstd, training=False)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, length=max(x.size // shape[-1], 4))


def test_exact(ops, dtype):
    """Values -1 and 1 in equal number: mean 0, variance 1, and 1/sqrt(1 + 3) is 1/2."""
    x = np.ones((2, 4, 4, 2), dtype)
    x[0, ..., 0], x[:, ::2, :, 1] = -1, -1
    gamma, beta = np.array([[2, 4], [10, -10]], wide(dtype))
    running = np.array([8, 0], wide(dtype)), np.array([2, 0], wide(dtype))
    y, mean, rstd = ops.batch_norm2d_fwd(
        x, gamma, beta, *running, training=True, momentum=0.5, eps=3.0
    )
    assert_exact(mean, [0, 0], wide(dtype))
    assert_exact(rstd, [0.5, 0.5], wide(dtype))
    assert_exact(y, x * gamma / 2 + beta, dtype)
    assert_exact(running[0], [4, 0], wide(dtype))
    count = x.size // 2
    assert_close(running[1], 0.5 * np.array([2, 0]) + 0.5 * count / (count - 1))


def test_far_from_zero(ops, dtype, random):
    """A mean thousands of times the deviation must not cost the variance its digits."""
    x = (random.normal((4, 8, 8, 5)) + 4096).astype(dtype)
    one, zero = np.ones(5, wide(dtype)), np.zeros(5, wide(dtype))
    want = reference.batch_norm2d_fwd(x, one, zero, np.zeros(5), np.ones(5), training=True)
    got = ops.batch_norm2d_fwd(x, one, zero, zero.copy(), one.copy(), training=True)
    assert_close(got[2], want[2], length=256, scale=16)
    assert_close(got[0], want[0], length=256, scale=4096)


def test_constant_channel(ops, dtype):
    x = np.full((2, 3, 3, 2), 7, dtype)
    one, zero = np.ones(2, wide(dtype)), np.zeros(2, wide(dtype))
    y, mean, rstd = ops.batch_norm2d_fwd(x, one, zero, zero.copy(), one.copy(), training=True)
    assert_exact(mean, [7, 7], wide(dtype))
    assert_exact(y, np.zeros(x.shape), dtype)
    assert_close(rstd, np.full(2, 1 / np.sqrt(1e-5)), length=4)


def test_gradient_is_orthogonal_to_constants_and_to_x(ops, dtype, random):
    """The output does not change when x is shifted or scaled, so neither does the gradient."""
    x, gamma, beta, *running = inputs((8, 32, 32, 9), random, dtype)
    _, mean, rstd = ops.batch_norm2d_fwd(x, gamma, beta, *running, training=True, eps=1e-30)
    dy = random.normal(x.shape, dtype)
    dx, _, _ = ops.batch_norm2d_bwd(dy, x, gamma, mean, rstd)
    count = x.size // 9
    for direction in (np.ones(x.shape), x):
        product = (np.float64(dx) * direction).sum(axis=(0, 1, 2))
        assert np.abs(product).max() <= 4 * finfo(dtype).eps * count * np.abs(dx).max()


def test_nan_stays_in_its_channel(ops, dtype, random):
    x, gamma, beta, *running = inputs((2, 4, 4, 11), random, dtype)
    clean = ops.batch_norm2d_fwd(x, gamma, beta, *(r.copy() for r in running), training=True)
    x[0, 0, 0, 4] = np.nan
    dirty = ops.batch_norm2d_fwd(x, gamma, beta, *running, training=True)
    others = np.arange(11) != 4
    for a, b in zip(dirty, clean, strict=True):
        assert np.isnan(a[..., 4]).all()
        assert_exact(a[..., others], b[..., others], b.dtype)
