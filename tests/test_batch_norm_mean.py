"""Batch normalisation, ReLU and the mean over the image in one operator."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from numerics import assert_close, assert_exact, wide
from test_batch_norm import inputs

FWD, BWD = "batch_norm2d_relu_global_avg_pool2d_fwd", "batch_norm2d_relu_global_avg_pool2d_bwd"
SHAPES = [
    (4, 6, 8, 8),
    (2, 5, 7, 16),
    (1, 2, 1, 1),
    (3, 1, 1, 33),
    (1, 2, 3, 1032),  # more channels than a block of CUDA's takes
    (2, 16, 17, 72),  # pieces of images, on the CPU
    (2, 41, 25, 3),  # and on CUDA
    (37, 3, 2, 20),
    (1, 300, 1, 5),
    (1100, 1, 1, 8),  # chunks of images, on CUDA
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_reference(ops, dtype, shape, training, random):
    x, gamma, beta, *running = inputs(shape, random, dtype)
    gamma[::3] *= -1
    count = x.size // shape[-1]
    want_running = [r.astype(np.float64) for r in running]
    options = {"training": training, "momentum": 0.3}
    want = getattr(reference, FWD)(x, gamma, beta, *want_running, **options)
    y, norm, alive = getattr(ops, FWD)(x, gamma, beta, *running, **options)
    assert y.dtype == dtype
    assert norm.dtype == alive.dtype == wide(dtype)
    scale = max(1, np.abs(want[1]).max()) * 4
    for a, b in zip(running, want_running, strict=True):
        assert_close(a, b, length=count, scale=scale)
    assert_close(norm[[0, 1, 3]], want[1][[0, 1, 3]], length=count, scale=scale)
    assert_close(y, want[0], length=count, scale=scale)
    assert_alive(x, norm, alive, dtype)

    dy = random.normal(y.shape, dtype)
    got = getattr(ops, BWD)(dy, x, gamma, norm, alive, training=training)
    want = getattr(reference, BWD)(dy, x, gamma, norm, alive, training=training)
    assert got[0].dtype == dtype
    clear = np.abs(z_of(x, norm)) > 1e-5 * scale  # else rounding decides what ReLU lets through
    assert_close(np.where(clear, got[0], 0), np.where(clear, want[0], 0), length=count, scale=scale)
    for a, b in zip(got[1:], want[1:], strict=True):
        assert a.dtype == wide(dtype)
        assert_close(a, b, length=count, scale=max(scale, np.abs(b).max()))


def z_of(x, norm):
    mean, scale, shift, _ = np.float64(norm)
    return (np.float64(x) - mean) * scale + shift


def assert_alive(x, norm, alive, dtype):
    """The share is a whole number of pixels, those that z tells but for rounding."""
    pixels = x.shape[1] * x.shape[2]
    z, distance = z_of(x, norm), np.float64(x) - np.float64(norm)[0]
    share, mean = np.float64(alive)
    count = (share * pixels).astype(wide(dtype))
    assert_close(count, np.round(share * pixels), length=4, scale=pixels)
    unsure = (np.abs(z) < 1e-5 * max(1, np.abs(norm).max())).sum(axis=(1, 2))
    assert (np.abs(share * pixels - (z > 0).sum(axis=(1, 2))) <= unsure + 0.01).all()
    want = np.where(z > 0, distance, 0).sum(axis=(1, 2)) / np.maximum(share * pixels, 1)
    sure = unsure == 0
    assert_close(
        np.where(sure, mean, 0).astype(wide(dtype)),
        np.where(sure, want, 0),
        length=pixels,
        scale=max(1, np.abs(distance).max()),
    )


def test_is_what_the_parts_give(ops, dtype, random):
    if dtype != wide(dtype):
        pytest.skip("the parts round what lies between them")
    x, gamma, beta, *running = inputs((3, 8, 10, 24), random, dtype)
    dy = random.normal((3, 24), dtype)
    fresh = [r.copy() for r in running]
    y, norm, alive = getattr(ops, FWD)(x, gamma, beta, *running, training=True)
    z, argmax, mean, rstd = ops.batch_norm2d_relu_max_pool2d_fwd(
        x, gamma, beta, *fresh, training=True, pool=1
    )
    want = ops.global_avg_pool2d_fwd(z)
    for a, b in zip((y, norm[0], norm[3], *running), (want, mean, rstd, *fresh), strict=True):
        assert_close(a, b, length=80)
    assert_close(alive[0], (argmax == 0).mean(axis=(1, 2)), length=4)
    dz = ops.global_avg_pool2d_bwd(dy, x.shape)
    want = ops.batch_norm2d_relu_max_pool2d_bwd(dz, argmax, x, gamma, mean, rstd, pool=1)
    for a, b in zip(getattr(ops, BWD)(dy, x, gamma, norm, alive), want, strict=True):
        assert_close(a, b, length=240, scale=max(1, np.abs(b).max()))


def test_dead_and_alive_channels(ops, dtype):
    """Constant channels: z is beta everywhere."""
    x = np.full((2, 4, 4, 9), 7, dtype)
    one, zero = np.ones(9, wide(dtype)), np.zeros(9, wide(dtype))
    for beta, share in ((one, 1), (zero, 0), (-one, 0)):
        y, _, alive = getattr(ops, FWD)(x, one, beta, zero.copy(), one.copy(), training=True)
        assert_exact(y, np.maximum(beta, 0) * np.ones(y.shape, dtype), dtype)
        assert_exact(alive[0], np.full((2, 9), share), wide(dtype))
        assert_exact(alive[1], np.zeros((2, 9)), wide(dtype))


def test_nan_stays_in_its_channel(ops, dtype, random):
    x, gamma, beta, *running = inputs((2, 4, 4, 11), random, dtype)
    fresh = [r.copy() for r in running]
    clean = getattr(ops, FWD)(x, gamma, beta, *fresh, training=True)
    x[0, 0, 0, 4] = np.nan
    dirty = getattr(ops, FWD)(x, gamma, beta, *running, training=True)
    others = np.arange(11) != 4
    for a, b in zip(dirty, clean, strict=True):
        assert_exact(a[..., others], b[..., others], b.dtype)
    assert np.isnan(dirty[0][..., 4]).all()


def test_special_values_in_evaluation(ops, dtype):
    """With these statistics nothing changes before ReLU: NaN passes, -inf does not."""
    inf, nan = np.inf, np.nan
    x = np.array([[-1, 3, nan, 1], [-inf, 2, 1, 7], [-inf, -1, 0, -3], [inf, -2, 1, 1]], dtype)
    one, zero = np.ones(1, wide(dtype)), np.zeros(1, wide(dtype))
    y, norm, alive = getattr(ops, FWD)(
        x[:, None, :, None], one, zero, zero, one, training=False, eps=0.0
    )
    assert_exact(y[:, 0], [nan, 2.5, 0, inf], dtype)
    assert_exact(alive[0, :, 0], [0.75, 0.75, 0, 0.75], wide(dtype))
    dy = np.ones((4, 1), dtype)
    dx, *_ = getattr(ops, BWD)(dy, x[:, None, :, None], one, norm, alive, training=False)
    want = [[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1]]
    assert_exact(dx[:, 0, :, 0], np.array(want) / 4, dtype)


def test_empty_batch(ops, dtype):
    x = np.empty((0, 4, 6, 5), dtype)
    gamma = np.ones(5, wide(dtype))
    y, norm, alive = getattr(ops, FWD)(x, gamma, gamma, gamma, gamma, training=False)
    assert y.shape == (0, 5)
    assert alive.shape == (2, 0, 5)
    dx, dgamma, dbeta = getattr(ops, BWD)(y, x, gamma, norm, alive)
    assert dx.shape == x.shape
    assert_exact(dgamma, np.zeros(5), wide(dtype))
    assert_exact(dbeta, np.zeros(5), wide(dtype))


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_dead_channel_passes_nothing(ops, dtype, value, random):
    x, gamma, _, *running = inputs((3, 4, 5, 20), random, dtype)
    beta = np.where(np.arange(20) % 2, 9, -9).astype(gamma.dtype)  # every other one is dead
    gamma[...] = 1
    _, norm, alive = getattr(ops, FWD)(x, gamma, beta, *running, training=True)
    assert_exact(alive[0], np.broadcast_to(np.arange(20) % 2, (3, 20)), wide(dtype))
    dy = np.where(np.arange(20) % 2, random.normal((3, 20), dtype), dtype(value)).astype(dtype)
    for gradient in getattr(ops, BWD)(dy, x, gamma, norm, alive):
        assert np.isfinite(gradient).all()
        assert_exact(gradient[..., ::2], np.zeros_like(gradient[..., ::2]), gradient.dtype)
