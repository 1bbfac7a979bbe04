"""Convolution, batch normalisation, ReLU and max pooling in one pass: a network's first block."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from numerics import assert_close, assert_exact, wide

CASES = [  # x, (K, R, S), pool, window
    ((3, 9, 11, 1), (16, 3, 3), 2, {"padding": 1}),
    ((3, 9, 11, 1), (16, 5, 3), (1, 2), {"padding": ((2, 2), (1, 1)), "stride": (2, 1)}),
    ((3, 12, 11, 3), (49, 3, 3), 2, {"padding": 1}),
    ((3, 12, 11, 3), (13, 3, 3), 2, {"padding": 1}),  # few channels: by the parts
    ((3, 12, 11, 2), (33, 2, 4), 1, {"stride": (1, 3)}),
    ((2, 6, 9, 4), (64, 2, 4), 2, {"padding": ((0, 1), (3, 0)), "stride": 2}),  # 32 numbers
    ((2, 12, 11, 4), (65, 3, 3), 2, {"padding": 1}),  # more numbers: by the parts
    ((1, 1, 300, 1), (19, 1, 20), (1, 3), {"stride": (1, 4)}),
    ((19, 5, 4, 1), (16, 3, 3), 2, {"padding": 1}),  # chunks of images
    ((2, 40, 41, 1), (32, 3, 3), 2, {"padding": 1}),
    ((5, 3, 2, 1), (4, 1, 1), 2, {}),  # one pixel of y
]


def draw(shape, kernel, random, dtype):
    K, R, S = kernel
    per_channel = wide(dtype)
    w, b = random.normal((K, R, S, shape[-1]), dtype), random.normal(K, per_channel)
    gamma, beta, mean = (random.normal(K, per_channel) for _ in range(3))
    var = random.normal(K, per_channel) ** 2 + per_channel.type(0.1)
    return random.normal(shape, dtype), w, b, gamma, beta, mean, var


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "kernel", "pool", "window"), CASES, ids=str)
def test_against_reference(ops, dtype, shape, kernel, pool, window, training, random):
    x, w, b, gamma, beta, *running = draw(shape, kernel, random, dtype)
    options = {"training": training, "pool": pool, **window}
    want_running = [r.astype(np.float64) for r in running]
    want = reference.conv2d_batch_norm2d_relu_max_pool2d_fwd(
        x, w, b, gamma, beta, *want_running, **options
    )
    y, argmax, mean, rstd = ops.conv2d_batch_norm2d_relu_max_pool2d_fwd(
        x, w, b, gamma, beta, *running, **options
    )
    assert y.dtype == dtype
    assert argmax.dtype == np.uint8
    places = 0.999 if dtype == wide(dtype) else 0.95  # rounding decides between near values
    assert (argmax == want[1]).mean() > places
    # The convolution's output is rounded before it is normalised.
    scale = max(1, np.abs(want[3] * gamma).max()) * max(1, np.abs(want[2]).max()) * 4
    for a, c in zip((y, mean, rstd, *running), (want[0], *want[2:], *want_running), strict=True):
        limit = max(scale, np.abs(c).max())
        assert_close(np.asarray(a, dtype), c, length=max(w[0].size, 64), scale=limit)

    dy = random.normal(y.shape, dtype)
    args = dy, argmax, x, w, b, gamma, mean, rstd
    got = ops.conv2d_batch_norm2d_relu_max_pool2d_bwd(*args, **options)
    want = reference.conv2d_batch_norm2d_relu_max_pool2d_bwd(*args, **options)
    size = np.abs(dy).max() * np.abs(gamma * rstd).max() * np.sqrt(y[..., 0].size)
    for a, c in zip(got, want, strict=True):
        assert a.dtype == wide(dtype)
        limit = max(4 * size, np.abs(c).max())
        assert_close(np.asarray(a, dtype), c, length=x.size // shape[-1], scale=limit)


def test_without_bias(ops, dtype, random):
    x, w, b, *rest = draw((2, 8, 9, 1), (16, 3, 3), random, dtype)
    want = ops.conv2d_batch_norm2d_relu_max_pool2d_fwd(x, w, 0 * b, *rest, training=False)
    got = ops.conv2d_batch_norm2d_relu_max_pool2d_fwd(x, w, None, *rest, training=False)
    for a, c in zip(got, want, strict=True):
        assert_exact(a, c, c.dtype)
    y, argmax, mean, rstd = got
    args = y, argmax, x, w
    *got, db = ops.conv2d_batch_norm2d_relu_max_pool2d_bwd(*args, None, rest[0], mean, rstd)
    *want, _ = ops.conv2d_batch_norm2d_relu_max_pool2d_bwd(*args, 0 * b, rest[0], mean, rstd)
    assert db is None
    for a, c in zip(got, want, strict=True):
        assert_exact(a, c, c.dtype)


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_a_large_mean_takes_no_digits_from_the_variance(ops, offset, random):
    """The statistics are those of the convolution in double, however far it is from 0."""
    x, w, b, gamma, beta, *running = draw((4, 20, 21, 1), (16, 3, 3), random, np.float32)
    x += np.float32(offset)
    if ops.kernels != "cpu":
        pytest.skip("there the convolution's output is rounded to float32")
    u = reference.conv2d_fwd(x, w, b)
    _, _, mean, rstd = ops.conv2d_batch_norm2d_relu_max_pool2d_fwd(
        x, w, b, gamma, beta, *running, training=True
    )
    np.testing.assert_allclose(mean, u.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(u.var((0, 1, 2)) + 1e-5), rtol=1e-6)


def test_what_no_output_reads_does_not_matter(ops, dtype, random):
    x, w, b, *rest = draw((1, 4, 7, 1), (16, 2, 2), random, dtype)
    options = {"training": True, "stride": (1, 3), "pool": (3, 1)}
    fresh = [a.copy() for a in rest]
    want = ops.conv2d_batch_norm2d_relu_max_pool2d_fwd(x, w, b, *fresh, **options)
    x[:, :, 5:] = np.inf
    got = ops.conv2d_batch_norm2d_relu_max_pool2d_fwd(x, w, b, *rest, **options)
    for a, c in zip(got, want, strict=True):
        assert_exact(a, c, c.dtype)


def test_empty_batch(ops, dtype, random):
    x, w, b, gamma, beta, mean, var = draw((0, 6, 8, 1), (5, 3, 3), random, dtype)
    y, argmax, mean, rstd = ops.conv2d_batch_norm2d_relu_max_pool2d_fwd(
        x, w, b, gamma, beta, mean, var, training=False
    )
    assert y.shape == argmax.shape == (0, 2, 3, 5)
    gradients = ops.conv2d_batch_norm2d_relu_max_pool2d_bwd(y, argmax, x, w, b, gamma, mean, rstd)
    for gradient in gradients:
        assert_exact(gradient, np.zeros(gradient.shape), wide(dtype))
