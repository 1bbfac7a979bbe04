"""Batch normalisation, ReLU and the convolution behind them in one pass."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from numerics import assert_close, assert_exact, wide
from test_batch_norm import inputs

DEPTHWISE = {"padding": 1, "groups": 16}
CASES = [  # x, (K, R, S), window
    ((2, 9, 7, 16), (16, 3, 3), DEPTHWISE),
    ((2, 9, 7, 13), (13, 3, 3), {"padding": 1, "groups": 13}),
    ((2, 9, 7, 16), (16, 3, 3), {**DEPTHWISE, "stride": 2}),
    ((1, 6, 8, 16), (16, 3, 3), {"groups": 16}),  # fewer rows of y than of x
    ((1, 6, 8, 16), (16, 5, 3), {**DEPTHWISE, "padding": 2}),  # another width of y
    ((1, 3, 8, 3), (3, 3, 3), {"padding": 1, "groups": 3}),
    ((2, 5, 4, 16), (24, 1, 1), {}),
    ((2, 17, 13, 24), (72, 1, 1), {}),  # sums of several blocks of pixels
    ((1, 20, 17, 33), (19, 1, 1), {}),
    ((1, 9, 40, 1), (4, 1, 1), {}),
    ((1, 9, 10, 24), (16, 1, 1), {"stride": 2}),
    ((1, 9, 10, 24), (16, 1, 1), {"padding": 1}),  # by what ReLU gives: zeros
    ((2, 14, 15, 16), (32, 3, 3), {"padding": 1}),  # Winograd
    ((2, 8, 9, 8), (16, 3, 3), {"padding": 1, "stride": (2, 1)}),
    ((1, 11, 10, 8), (12, 3, 3), {"padding": 2, "dilation": 2, "groups": 4}),
    ((1, 41, 25, 72), (72, 3, 3), {"padding": 1, "groups": 72}),  # chunks of rows on CUDA
]


def weights(shape, kernel, window, random, dtype):
    K, R, S = kernel
    w = random.normal((K, R, S, shape[-1] // window.get("groups", 1)), dtype)
    return w, random.normal(K, wide(dtype))


def away_from_zero(shape, random, dtype, training):
    """Inputs that normalise to nothing so near 0 that rounding could change its sign."""
    for _ in range(20):
        x, gamma, beta, *running = inputs(shape, random, dtype)
        fresh = [r.astype(np.float64) for r in running]
        z, *_ = reference.batch_norm2d_fwd(x, gamma, beta, *fresh, training=training)
        if np.abs(z).min() > 2e-6 * np.abs(z).max():
            return x, gamma, beta, *running
    raise AssertionError("every draw has a number near 0")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "kernel", "window"), CASES, ids=str)
def test_against_reference(ops, dtype, shape, kernel, window, training, random):
    x, gamma, beta, *running = away_from_zero(shape, random, dtype, training)
    w, b = weights(shape, kernel, window, random, dtype)
    count, depth = x.size // shape[-1], w[0].size
    options = {"training": training, "momentum": 0.3}
    want_running = [r.astype(np.float64) for r in running]
    want = reference.batch_norm2d_relu_conv2d_fwd(
        x, gamma, beta, *want_running, w, b, **options, **window
    )
    y, norm = ops.batch_norm2d_relu_conv2d_fwd(x, gamma, beta, *running, w, b, **options, **window)
    assert y.dtype == dtype
    assert norm.dtype == wide(dtype)
    scale = max(1, np.abs(want[1][3]).max()) * 4
    assert_close(y, want[0], length=depth, scale=np.abs(want[0]).max() * 4)
    for a, c in zip((norm, *running), (want[1], *want_running), strict=True):
        assert_close(a, c, length=count, scale=max(scale, np.abs(c).max()))

    dy = random.normal(y.shape, dtype)
    options = {"training": training, **window}
    got = ops.batch_norm2d_relu_conv2d_bwd(dy, x, gamma, norm, w, **options)
    want = reference.batch_norm2d_relu_conv2d_bwd(dy, x, gamma, norm, w, **options)
    assert got[0].dtype == dtype
    for a, c in zip(got, want, strict=True):
        assert a is got[0] or a.dtype == wide(dtype)
        # The convolution's input and its gradient are rounded to the dtype, then added up.
        limit = max(scale, np.abs(c).max()) * (1 if dtype == wide(dtype) else 2)
        assert_close(np.asarray(a, dtype), c, length=count, scale=limit)


@pytest.mark.parametrize("window", [{}, DEPTHWISE], ids=str)
def test_without_bias(ops, dtype, window, random):
    x, gamma, beta, *running = inputs((2, 6, 5, 16), random, dtype)
    w, b = weights(x.shape, (16, 3, 3) if window else (16, 1, 1), window, random, dtype)
    args = x, gamma, beta, *running, w
    want, _ = ops.batch_norm2d_relu_conv2d_fwd(*args, 0 * b, training=False, **window)
    y, norm = ops.batch_norm2d_relu_conv2d_fwd(*args, training=False, **window)
    assert_exact(y, want, dtype)
    *want, _ = ops.batch_norm2d_relu_conv2d_bwd(y, x, gamma, norm, w, **window)
    *got, db = ops.batch_norm2d_relu_conv2d_bwd(y, x, gamma, norm, w, need_db=False, **window)
    assert db is None
    for a, c in zip(got, want, strict=True):
        assert_exact(a, c, c.dtype)


@pytest.mark.parametrize(("kernel", "window"), [((16, 3, 3), DEPTHWISE), ((8, 1, 1), {})], ids=str)
def test_zero_and_below_pass_nothing(ops, dtype, kernel, window):
    """With a scale of 0, z is beta alone: exactly 0 is dead too."""
    x, ones = np.ones((1, 4, 4, 16), dtype), np.ones(16, wide(dtype))
    w = np.ones((*kernel, 1 if window else 16), dtype)
    for beta, alive in ((0, 0), (-1, 0), (1, 1)):
        y, norm = ops.batch_norm2d_relu_conv2d_fwd(
            x, 0 * ones, beta * ones, ones, ones, w, training=False, **window
        )
        assert y.any() == alive
        dx, _, dbeta, dw, _ = ops.batch_norm2d_relu_conv2d_bwd(
            np.ones_like(y), x, ones, norm, w, training=False, **window
        )
        for gradient in (dx, dbeta, dw):
            assert gradient.all() == gradient.any() == alive


@pytest.mark.parametrize(("kernel", "window"), [((16, 3, 3), DEPTHWISE), ((8, 1, 1), {})], ids=str)
def test_nan_goes_through(ops, dtype, kernel, window, random):
    x, gamma, beta, *running = inputs((1, 5, 6, 16), random, dtype)
    w, b = weights(x.shape, kernel, window, random, dtype)
    x[0, 2, 3, 4] = np.nan
    y, norm = ops.batch_norm2d_relu_conv2d_fwd(
        x, gamma, beta, *running, w, b, training=False, **window
    )
    rows, cols, channels = np.nonzero(np.isnan(y[0]))
    near = 1 if window else 0
    assert set(rows) == set(range(2 - near, 3 + near))
    assert set(cols) == set(range(3 - near, 4 + near))
    assert set(channels) == ({4} if window else set(range(8)))
    _, dgamma, dbeta, *_ = ops.batch_norm2d_relu_conv2d_bwd(
        np.ones_like(y), x, gamma, norm, w, training=False, **window
    )
    assert np.isnan(dgamma).nonzero()[0].tolist() == [4]
    assert np.isfinite(dbeta).all()


def test_empty_batch(ops, dtype):
    x, w = np.empty((0, 4, 6, 8), dtype), np.ones((8, 3, 3, 1), dtype)
    ones = np.ones(8, wide(dtype))
    window = {"padding": 1, "groups": 8}
    y, norm = ops.batch_norm2d_relu_conv2d_fwd(
        x, ones, ones, ones, ones, w, training=False, **window
    )
    assert y.shape == (0, 4, 6, 8)
    dx, *others = ops.batch_norm2d_relu_conv2d_bwd(y, x, ones, norm, w, **window)
    assert dx.shape == x.shape
    for gradient in others:
        assert_exact(gradient, np.zeros(gradient.shape), wide(dtype))
