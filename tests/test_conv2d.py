from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import reference
from numerics import Random, assert_adjoint, assert_close, assert_exact, wide
from shapes import CONV_CASES, TILE_CASES
from stapes.bench.shapes import SHAPES, ConvCase


def inputs(case, draw, dtype):
    """x, w, b, and a dy of the output's shape."""
    x, w, b = draw(case.x, dtype), draw(case.w, dtype), draw(case.w[0], wide(dtype))
    windows = reference.windows.Windows(
        case.x[1:3], case.w[1:3], case.stride, case.padding, case.dilation
    )
    return x, w, b, draw((case.x[0], *windows.output_size, case.w[0]), dtype)


def check(case, ops, dtype, draw, compare):
    """``compare(got, want, length of the sums, dtype of the result, scale or None)``"""
    x, w, b, dy = inputs(case, draw, dtype)
    o = case.options
    taps = case.w[1] * case.w[2]
    want = reference.conv2d_fwd(x, w, b, **o)
    compare(ops.conv2d_fwd(x, w, b, **o), want, taps * case.w[3], dtype)
    want = reference.conv2d_dgrad(dy, w, x.shape, **o)
    length = taps * case.w[0] // case.groups
    compare(ops.conv2d_dgrad(dy, w, x.shape, **o), want, length, dtype)
    pixels = dy.size // case.w[0]
    want = reference.conv2d_wgrad(dy, x, w.shape, **o)
    compare(ops.conv2d_wgrad(dy, x, w.shape, **o), want, pixels, wide(dtype))
    # One sum for each k: with few of them all may cancel, and their rounding errors do not.
    scale = np.sqrt(np.square(np.float64(dy)).sum(axis=(0, 1, 2))).max()
    compare(ops.conv2d_bgrad(dy), reference.conv2d_bgrad(dy), pixels, wide(dtype), scale)


def exact(got, want, _length, dtype, _scale=None):
    assert_exact(got, want, dtype)


def close(got, want, length, dtype, scale=None):
    assert got.dtype == dtype
    assert_close(got, want, length=length, scale=scale)


@pytest.mark.parametrize("case", CONV_CASES + TILE_CASES, ids=str)
def test_exact(ops, dtype, case, random):
    check(case, ops, dtype, random.integers, exact)


@pytest.mark.parametrize("case", CONV_CASES + TILE_CASES, ids=str)
def test_random(ops, dtype, case, random):
    check(case, ops, dtype, random.normal, close)


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_bias_and_activation(ops, dtype, case, random):
    x, w, b, _ = inputs(case, random.integers, dtype)
    for bias in (None, b):
        want = reference.conv2d_fwd(x, w, bias, **case.options)
        assert_exact(ops.conv2d_fwd(x, w, bias, **case.options), want, dtype)
        got = ops.conv2d_fwd(x, w, bias, **case.options, activation="relu")
        assert_exact(got, np.maximum(want, 0), dtype)


BIG_CASES = [
    *(case.images(8) for case in SHAPES),
    ConvCase("deep", (4, 8, 8, 256), (256, 3, 3, 256), padding="same"),
    ConvCase("5x5_stride2", (8, 31, 33, 16), (24, 5, 5, 16), stride=2, padding=2),
    ConvCase("dilated", (8, 32, 31, 16), (32, 3, 3, 16), padding=4, dilation=4),
    ConvCase("depthwise_stride2", (8, 33, 32, 96), (96, 3, 3, 1), 2, "same", 1, 96),
]


@pytest.mark.parametrize("case", BIG_CASES, ids=str)
def test_adjoint(ops, dtype, case, random):
    if not ops.fast:
        pytest.skip("big shapes take minutes here")
    x, w, _, dy = inputs(case, random.normal, dtype)
    y = ops.conv2d_fwd(x, w, **case.options)
    dx = ops.conv2d_dgrad(dy, w, x.shape, **case.options)
    dw = ops.conv2d_wgrad(dy, x, w.shape, **case.options)
    assert_adjoint((dy, y), (dx, x), (dw, w))


def test_batch_is_its_images(ops, dtype, random):
    """On a GPU big enough for the largest tiles, of which one image has too few."""
    case = ConvCase("", (9, 12, 13, 8), (16, 3, 3, 8), padding=1)
    if ops.name == "cuda":
        case = ConvCase("", (64, 32, 32, 64), (128, 3, 3, 64), padding=1)
    x, w, b, dy = inputs(case, random.integers, dtype)
    o = case.options
    y, dx = ops.conv2d_fwd(x, w, b, **o), ops.conv2d_dgrad(dy, w, x.shape, **o)
    dw = np.zeros(w.shape)
    for i in range(case.x[0]):
        image, gradient = x[i : i + 1], dy[i : i + 1]
        assert_exact(y[i : i + 1], ops.conv2d_fwd(image, w, b, **o), dtype)
        assert_exact(dx[i : i + 1], ops.conv2d_dgrad(gradient, w, image.shape, **o), dtype)
        dw += ops.conv2d_wgrad(gradient, image, w.shape, **o)
    assert_exact(ops.conv2d_wgrad(dy, x, w.shape, **o), dw, wide(dtype))


@st.composite
def conv_cases(draw):
    small = st.integers(1, 4)
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 4]))
    depthwise = draw(st.booleans()) and groups > 1
    c = 1 if depthwise else draw(st.sampled_from([1, 2, 3, 4, 7, 8, 9, 16]))
    k = groups * draw(st.sampled_from([1, 2, 3, 4, 7, 8, 9, 16]))
    r, s = draw(small), draw(small)
    h, w = draw(st.integers(1, 10)), draw(st.integers(1, 10))
    pad = st.integers(0, 4)
    padding = draw(
        st.one_of(
            st.sampled_from(["same", "valid"]),
            pad,
            st.tuples(pad, pad),
            st.tuples(st.tuples(pad, pad), st.tuples(pad, pad)),
        )
    )
    stride = draw(st.one_of(st.integers(1, 3), st.tuples(small, small)))
    dilation = draw(st.one_of(st.integers(1, 3), st.tuples(small, small)))
    windows = reference.windows.Windows((h, w), (r, s), stride, padding, dilation)
    assume(min(windows.output_size) >= 1)
    x = (draw(st.integers(0, 3)), h, w, groups * c)
    return ConvCase("drawn", x, (k, r, s, c), stride, padding, dilation, groups)


@given(case=conv_cases(), seed=st.integers(0, 1000))
def test_drawn(ops, dtype, case, seed):
    check(case, ops, dtype, Random(seed).integers, exact)


SEPARATE_CASES = [c for c in CONV_CASES if c.x[0] > 1 and c.w[0] > 1]


@pytest.mark.parametrize("case", SEPARATE_CASES, ids=str)
def test_nan_stays_in_its_image_and_channel(ops, dtype, case, random):
    x, w, b, dy = inputs(case, random.normal, dtype)
    o = case.options
    clean = ops.conv2d_fwd(x, w, b, **o)
    dirty_w = w.copy()
    dirty_w[-1] = np.nan
    y = ops.conv2d_fwd(x, dirty_w, b, **o)
    assert_exact(y[..., :-1], clean[..., :-1], dtype)
    activated = ops.conv2d_fwd(x, dirty_w, b, **o, activation="relu")
    np.testing.assert_array_equal(np.isnan(activated), np.isnan(y), "ReLU lets NaN pass")

    clean_dx = ops.conv2d_dgrad(dy, w, x.shape, **o)
    dirty_x, dirty_dy = x.copy(), dy.copy()
    dirty_x[-1], dirty_dy[-1] = np.nan, np.nan
    assert_exact(ops.conv2d_fwd(dirty_x, w, b, **o)[:-1], clean[:-1], dtype)
    assert_exact(ops.conv2d_dgrad(dirty_dy, w, x.shape, **o)[:-1], clean_dx[:-1], dtype)

    dirty_dy = dy.copy()
    dirty_dy[..., 0] = np.nan
    dw = ops.conv2d_wgrad(dirty_dy, x, w.shape, **o)
    assert_exact(dw[1:], ops.conv2d_wgrad(dy, x, w.shape, **o)[1:], wide(dtype))


def test_bgrad_of_nothing(ops, dtype):
    assert_exact(ops.conv2d_bgrad(np.zeros((0, 4, 4, 3), dtype)), np.zeros(3), wide(dtype))


def test_linear_is_a_1x1_convolution(ops, dtype, random):
    x, w = random.integers((6, 19), dtype), random.integers((9, 19), dtype)
    y = ops.conv2d_fwd(x[:, None, None, :], w[:, None, None, :])
    assert_exact(y[:, 0, 0], ops.linear_fwd(x, w), dtype)


def test_dilation_and_padding_of_a_million(ops, dtype, random):
    """Nothing but the middle tap meets the image: neither memory nor time grows with the rest."""
    x, w, dy = (random.integers(s, dtype) for s in [(2, 8, 7, 4), (6, 3, 3, 4), (2, 8, 7, 6)])
    options = {"dilation": 10**6, "padding": 10**6}
    middle = w[:, 1:2, 1:2]
    assert_exact(ops.conv2d_fwd(x, w, **options), reference.conv2d_fwd(x, middle), dtype)
    dx = ops.conv2d_dgrad(dy, w, x.shape, **options)
    assert_exact(dx, reference.conv2d_dgrad(dy, middle, x.shape), dtype)
    dw = np.zeros(w.shape)
    dw[:, 1:2, 1:2] = reference.conv2d_wgrad(dy, x, middle.shape)
    assert_exact(ops.conv2d_wgrad(dy, x, w.shape, **options), dw, wide(dtype))


def test_coordinates_beyond_31_bits(ops, dtype, random):
    x, w = random.integers((1, 3, 3, 8), dtype), random.integers((8, 2, 2, 8), dtype)
    far = 2**31 - 1
    options = {"dilation": far, "padding": ((far, 0), (far, 0))}
    if ops.kernels == "cuda":
        with pytest.raises(ValueError, match=r"conv2d_fwd: on CUDA .* below 2\^31"):
            ops.conv2d_fwd(x, w, **options)
    else:  # the last tap alone meets the image
        want = reference.conv2d_fwd(x, w[:, 1:, 1:])
        assert_exact(ops.conv2d_fwd(x, w, **options), want, dtype)


def test_stride_and_padding_of_a_billion(ops, dtype, random):
    """One output in 33 x 33 meets the image."""
    x, w = (random.integers(s, dtype) for s in [(2, 5, 4, 3), (4, 3, 3, 3)])
    b = random.integers(4, wide(dtype))
    options = {"stride": 2**26, "padding": 2**30}
    want = np.broadcast_to(np.float64(b), (2, 33, 33, 4)).copy()
    want[:, 16, 16] = reference.conv2d_fwd(x[:, :3, :3], w, b)[:, 0, 0]
    assert_exact(ops.conv2d_fwd(x, w, b, **options), want, dtype)
    dy = random.integers(want.shape, dtype)
    dw = reference.conv2d_wgrad(dy[:, 16:17, 16:17], x[:, :3, :3], w.shape)
    assert_exact(ops.conv2d_wgrad(dy, x, w.shape, **options), dw, wide(dtype))
    dx = np.zeros(x.shape)
    dx[:, :3, :3] = reference.conv2d_dgrad(dy[:, 16:17, 16:17], w, (2, 3, 3, 3))
    assert_exact(ops.conv2d_dgrad(dy, w, x.shape, **options), dx, dtype)


def test_fused_stride_of_a_billion(ops, random):
    x, w = (random.integers(s, np.float32) for s in [(1, 5, 4, 3), (4, 3, 3, 3)])
    options = {"stride": 2**26, "padding": 2**30}
    y, argmax = ops.conv2d_relu_max_pool2d_fwd(x, w, pool=(15, 17), **options)
    z = reference.conv2d_fwd(x[:, :3, :3], w)[0, 0, 0]
    want = np.zeros((1, 2, 1, 4))
    want[0, 1, 0] = np.maximum(z, 0)
    assert_exact(y, want, np.float32)
    places = np.full(want.shape, 255)
    places[0, 1, 0, z > 0] = (16 - 15) * 17 + 16
    assert_exact(argmax, places, np.uint8)
