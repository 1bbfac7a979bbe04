"""Several convolutions in a row, each with batch normalisation and ReLU before it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import reference
import stapes.ops
from chains import dense, depthwise, drawn, settings_of
from devices import copied, each, places, same_bits
from numerics import assert_close, assert_exact, wide
from stapes.ops import NormConv

BIASED = {"bias": True}


def pairs(c):
    return [depthwise(c), dense(c, c, 1)] * 2


# x, blocks. Between the blocks gradients take turns in two pieces of memory, each as large as the
# largest of its turn, or dx.
CASES = {
    "64": ((2, 9, 7, 64), pairs(64)),
    "64_bands": ((3, 21, 50, 64), pairs(64)),
    "32": ((2, 14, 11, 32), pairs(32)),
    "48": ((2, 14, 11, 48), pairs(48)),
    "13": ((3, 17, 11, 13), pairs(13)),
    "one": ((2, 9, 7, 24), [depthwise(24)]),
    "one_dense": ((2, 13, 12, 16), [dense(16, 32, **BIASED)]),
    "few": ((1, 3, 8, 3), [depthwise(3), dense(3, 1, 1), dense(1, 4, 1), depthwise(4)]),
    "tall": ((6, 120, 3, 64), [dense(64, 64, 1), depthwise(64), depthwise(64), dense(64, 64, 1)]),
    "wide": ((2, 3, 1100, 32), pairs(32)),
    "one_row": ((5, 1, 70, 32), pairs(32)),
    "two_rows": ((40, 2, 9, 16), pairs(16)),
    "growing": ((2, 12, 13, 8), [dense(8, 16, 1), dense(16, 32, 1), dense(32, 64, 1), *pairs(64)]),
    "shrinking": ((2, 12, 13, 64), [dense(64, 32, 1), *pairs(32), dense(32, 8, 1), depthwise(8)]),
    "stride": ((2, 17, 15, 32), [depthwise(32, stride=2), *pairs(32), depthwise(32, stride=2)]),
    "stride_2x1": ((2, 17, 15, 16), [dense(16, 16, 1), depthwise(16, stride=(2, 1)), *pairs(16)]),
    "stride_1x2": ((2, 17, 15, 16), [dense(16, 16, 1), depthwise(16, stride=(1, 2)), *pairs(16)]),
    "winograd": ((2, 14, 15, 16), [*pairs(16), dense(16, 32), dense(32, 16), *pairs(16)]),
    "grouped": ((2, 9, 8, 16), [*pairs(16), dense(4, 32, groups=4), dense(32, 16, 1)]),
    "biased": ((2, 12, 13, 32), [depthwise(32, **BIASED), dense(32, 32, 1, **BIASED), *pairs(32)]),
    "biased_last": ((2, 12, 13, 32), [dense(32, 48, 1), dense(48, 32, 1), depthwise(32, **BIASED)]),
    "dilated": (
        (2, 30, 13, 16),
        [
            *(dense(16, 16, 1), depthwise(16, dilation=(2, 1), padding=(2, 1))),
            *(dense(16, 16, 1), depthwise(16, dilation=2, padding=2), dense(16, 16, 1)),
        ],
    ),
    "5x3": ((2, 20, 6, 16), [dense(16, 16, 1), depthwise(16, (5, 3), padding=2), dense(16, 16, 1)]),
    "rows_above": (  # as many rows of y as of x, and none below them
        (2, 20, 6, 16),
        [dense(16, 16, 1), depthwise(16, padding=((2, 0), (1, 1))), dense(16, 16, 1)],
    ),
    "smaller": ((2, 20, 9, 16), [dense(16, 16, 1), depthwise(16, padding=0), dense(16, 16, 1)]),
    "larger": ((2, 9, 8, 16), [dense(16, 16, 1, padding=1), depthwise(16), dense(16, 16, 1)]),
}
TRAINING = {"training": (True,), "evaluation": (False,), "mixed": (True, False)}


def drawn_for(ops, shape, kinds, random, dtype, training):
    def forward(x, block):
        arrays = each(copied, block[:6])
        return ops.batch_norm2d_relu_conv2d_fwd(x, *arrays, **settings_of(block))[0]

    return drawn(shape, kinds, random, dtype, training, forward)


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("case", CASES)
def test_against_reference(ops, dtype, case, training, random):
    """Each block by what ours made of the blocks before it."""
    shape, kinds = CASES[case]
    if np.prod(shape) > 1e5 and not ops.fast:
        pytest.skip("slow")
    x, blocks = drawn_for(ops, shape, kinds, random, dtype, TRAINING[training])
    before = each(copied, blocks)
    kept = ops.batch_norm2d_relu_conv2d_chain_fwd(x, blocks)
    inputs = [x, *(y for y, _ in kept)]
    for i, block in enumerate(blocks):
        check_forward(ops, inputs[i], before[i], block, kept[i], dtype)

    dy = random.normal(inputs[-1].shape, dtype)
    dx, gradients = ops.batch_norm2d_relu_conv2d_chain_bwd(dy, x, blocks, kept)
    assert dx.dtype == dtype
    want = dy
    for i in reversed(range(len(blocks))):
        given, want, wanted = want, *backward(want, inputs[i], blocks[i], kept[i][1])
        # Of each block behind, what it passes on is rounded, and in 16 bits what it reads as well.
        roundings = (len(blocks) - i) * (1 if dtype == wide(dtype) else 2)
        count, largest = inputs[i][..., 0].size, 4 * max(np.abs(g).max() for g in (given, want))
        for a, c in zip(gradients[i], wanted, strict=True):
            if c is None:
                assert a is None
                continue
            assert a.dtype == wide(dtype)
            scale = roundings * max(np.abs(c).max(), largest)
            assert_close(np.asarray(a, dtype), c, length=count, scale=scale)
    assert_close(dx, want, length=count, scale=roundings * largest)


def check_forward(ops, x, before, block, kept, dtype):
    running = [np.float64(r) for r in before[2:4]]
    y, norm = reference.batch_norm2d_relu_conv2d_fwd(
        x, *before[:2], *running, *before[4:6], **settings_of(block)
    )
    assert kept[0].dtype == dtype
    assert kept[1].dtype == wide(dtype)
    # The CPU adds up few numbers in float32; in float64 a variance may lose as much as their count.
    count = x[..., 0].size
    length = count if ops.kernels == "cuda" else 16 if dtype == np.float32 else count**2
    assert_close(kept[0], y, length=length + block.w[0].size, scale=np.abs(y).max() * 4)
    z = (np.float64(x) - norm[0]) * norm[1] + norm[2]
    assert (np.abs(z) > 1e-6 * np.abs(norm[2])).all(), "a sign may depend on rounding"
    ours = *kept[1], block.running_mean, block.running_var
    for a, c in zip(ours, (*norm, *running), strict=True):
        assert_close(a, c, length=length, scale=max(1, np.abs(c).max()))


def backward(dy, x, block, norm):
    o = settings_of(block)
    del o["momentum"], o["eps"]
    dx, *gradients = reference.batch_norm2d_relu_conv2d_bwd(
        dy, x, block.gamma, norm, block.w, need_db=block.b is not None, **o
    )
    return dx, gradients


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("block", [depthwise(32), dense(32, 16, 1, **BIASED), dense(32, 16)])
def test_one_block_is_the_operator_of_one(ops, dtype, block, training, random):
    x, (block,) = drawn((2, 12, 13, 32), [block], random, dtype, [training])
    ((y, norm),) = ops.batch_norm2d_relu_conv2d_chain_fwd(x, [each(copied, block)])
    o = settings_of(block)
    want = ops.batch_norm2d_relu_conv2d_fwd(x, *block[:6], **o)
    assert same_bits(y, want[0])
    assert same_bits(norm, want[1])
    dy = random.normal(y.shape, dtype)
    dx, (gradients,) = ops.batch_norm2d_relu_conv2d_chain_bwd(dy, x, [block], [(y, norm)])
    del o["momentum"], o["eps"]
    need_db = block.b is not None
    want = ops.batch_norm2d_relu_conv2d_bwd(dy, x, block.gamma, norm, block.w, need_db=need_db, **o)
    for a, c in zip((dx, *gradients), want, strict=True):
        assert (a is None and c is None) or same_bits(a, c)


def passed_on(c, dtype, gain, bias, kernel):
    """A block that gives ``gain`` times what ReLU leaves, plus ``bias``."""
    one = np.ones(c, wide(dtype))
    w = np.zeros((c, kernel, kernel, 1), dtype)
    w[:, kernel // 2, kernel // 2, 0] = gain
    window = {"padding": kernel // 2, "groups": c}
    if kernel == 1:
        w, window = (np.eye(c) * gain).reshape(c, 1, 1, c).astype(dtype), {}
    return NormConv(one, 0 * one, 0 * one, one.copy(), w, bias * one, **window)


# Large enough for the second block's statistics to be taken while the first one's y is made.
BANDS = (3, 21, 50, 64)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("mean", [0, 1000, -3e5])
def test_a_mean_far_from_zero(ops, dtype, mean, kernel, random):
    if dtype == np.float16 and abs(mean) > 65504:
        pytest.skip("float16 has no such number")
    x = random.normal(BANDS if ops.fast else (1, 9, 21, 32), dtype)
    block = passed_on(x.shape[-1], dtype, 1 if mean < 0 else 0.01, mean, kernel)
    blocks = [each(copied, block._replace(eps=1e-10)) for _ in range(2)]
    (y, _), (_, norm) = ops.batch_norm2d_relu_conv2d_chain_fwd(x, blocks)
    y = np.float64(y).astype(np.longdouble)
    assert wide(dtype) != dtype or (y.std(axis=(0, 1, 2)) > 0.003).all()
    assert_close(norm[0], y.mean(axis=(0, 1, 2)), length=100)
    rtol = 1e-3 if ops.kernels == "cuda" else 1e-6 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(norm[3], 1 / np.sqrt(y.var(axis=(0, 1, 2)) + 1e-10), rtol=rtol)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("value", [7, 0.1, -1e4])
def test_constant_maps(ops, dtype, value, kernel, random):
    x = random.normal(BANDS if ops.fast else (1, 9, 21, 32), dtype)
    blocks = [passed_on(x.shape[-1], dtype, *o, kernel) for o in ((0, value), (1, 0.5))]
    (y, _), (last, norm) = ops.batch_norm2d_relu_conv2d_chain_fwd(x, blocks)
    constant = y.ravel()[0]
    assert (y == constant).all()
    assert_close(norm[0], np.full(len(norm[0]), np.float64(constant)))
    assert_close(norm[3], np.full(len(norm[3]), 1 / np.sqrt(1e-5)), length=4)
    assert_close(last, np.full(last.shape, 0.5), length=4, scale=300 * abs(value))


@pytest.mark.parametrize("training", [True, False])
def test_nan_stays_in_its_channel(ops, dtype, training, random):
    kinds = [depthwise(32), depthwise(32)]
    x, blocks = drawn((2, 9, 8, 32), kinds, random, dtype, [training])
    clean = ops.batch_norm2d_relu_conv2d_chain_fwd(x, each(copied, blocks))
    x[0, 4, 3, 5] = np.nan
    kept = ops.batch_norm2d_relu_conv2d_chain_fwd(x, blocks)
    others = np.arange(32) != 5
    for (_, dirty), (_, good) in zip(places(kept), places(clean), strict=True):
        assert_exact(dirty[..., others], good[..., others], good.dtype)
    nowhere = np.isnan(kept[1][0][..., 5])
    if training:
        assert nowhere.all()
    else:
        rows, cols = nowhere[0].nonzero()
        assert not nowhere[1].any()
        assert (set(rows), set(cols)) == (set(range(2, 7)), set(range(1, 6)))

    dx, gradients = ops.batch_norm2d_relu_conv2d_chain_bwd(
        np.ones_like(kept[1][0]), x, blocks, kept
    )
    assert np.isfinite(np.float64(dx[..., others])).all()
    for dgamma, dbeta, dw, _ in gradients:
        assert np.isnan(dgamma).nonzero()[0].tolist() == [5]
        assert np.isnan(dw).any(axis=(1, 2, 3)).nonzero()[0].tolist() == [5]
        assert training or np.isfinite(dbeta).all()


@pytest.mark.parametrize("kinds", [pairs(32), [dense(32, 32, 1), dense(32, 16), depthwise(16)]])
def test_empty_batch(ops, dtype, kinds, random):
    _, blocks = drawn((1, 6, 5, 32), kinds, random, dtype, [False])
    x = np.empty((0, 6, 5, 32), dtype)
    kept = ops.batch_norm2d_relu_conv2d_chain_fwd(x, blocks)
    for y, norm in kept:
        assert y.shape[:3] == (0, 6, 5)
        assert np.isfinite(norm).all()
    dx, gradients = ops.batch_norm2d_relu_conv2d_chain_bwd(kept[-1][0], x, blocks, kept)
    assert dx.shape == x.shape
    for _, gradient in places(gradients):
        assert_exact(gradient, np.zeros(gradient.shape), wide(dtype))


def test_an_empty_batch_and_then_blocks_in_training(ops, dtype, random):
    _, blocks = drawn((1, 6, 5, 32), pairs(32), random, dtype, [False, True])
    with pytest.raises(ValueError, match="block 1"):
        ops.batch_norm2d_relu_conv2d_chain_fwd(np.empty((0, 6, 5, 32), dtype), blocks)


@pytest.mark.parametrize("case", ["tall", "64_bands", "stride"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_bits_for_any_number_of_threads(dtype, case, threads, random):
    """Threads keep rows of gradients that they made from one piece to the next."""
    x, blocks = drawn(*CASES[case], random, dtype)
    results = []
    for count in (1, 2, 3):
        threads(count)
        fresh = each(copied, blocks)
        kept = stapes.ops.batch_norm2d_relu_conv2d_chain_fwd(x, fresh)
        dy = np.cos(np.arange(kept[-1][0].size)).reshape(kept[-1][0].shape).astype(dtype)
        of_dy = stapes.ops.batch_norm2d_relu_conv2d_chain_bwd(dy, x, fresh, kept)
        results.append([a for _, a in places((kept, of_dy, fresh))])
    for one, other in pairwise(results):
        assert all(map(same_bits, one, other))


def test_blocks_may_share_what_is_only_read(ops, dtype, random):
    x, (block,) = drawn((2, 6, 5, 16), [depthwise(16)], random, dtype, [False])
    kept = ops.batch_norm2d_relu_conv2d_chain_fwd(x, [block, block])
    want = ops.batch_norm2d_relu_conv2d_chain_fwd(x, [each(copied, block), block])
    for (_, a), (_, b) in zip(places(kept), places(want), strict=True):
        assert same_bits(a, b)
