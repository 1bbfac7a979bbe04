"""The reference itself: its gradients against finite differences of its forward functions."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from chains import dense, depthwise, drawn
from devices import copied, each
from shapes import CONV_CASES, FUSED_CASES, POOL_CASES, TRANSPOSE_CASES

SMALL_CONV_CASES = [c for c in CONV_CASES if not c.name.startswith("tail")]


def check_gradient(f, x, dy, gradient, random, step=1e-5, rtol=1e-6):
    """<dy, the derivative of f along v> is <gradient, v>, for a few directions v."""
    for _ in range(3):
        v = random.normal(x.shape)
        difference = (f(x + step * v) - f(x - step * v)) / (2 * step)
        scale = np.linalg.norm(dy) * np.linalg.norm(difference) + 1e-12
        assert abs(np.vdot(dy, difference) - np.vdot(gradient, v)) <= rtol * scale


@pytest.mark.parametrize("case", SMALL_CONV_CASES, ids=str)
def test_conv2d(case, random):
    x, w, b = random.normal(case.x), random.normal(case.w), random.normal(case.w[0])
    y = reference.conv2d_fwd(x, w, b, **case.options)
    dy = random.normal(y.shape)

    dx = reference.conv2d_dgrad(dy, w, x.shape, **case.options)
    dw = reference.conv2d_wgrad(dy, x, w.shape, **case.options)
    check_gradient(lambda x: reference.conv2d_fwd(x, w, b, **case.options), x, dy, dx, random)
    check_gradient(lambda w: reference.conv2d_fwd(x, w, b, **case.options), w, dy, dw, random)
    db = reference.conv2d_bgrad(dy)
    check_gradient(lambda b: reference.conv2d_fwd(x, w, b, **case.options), b, dy, db, random)


def test_conv2d_by_hand():
    x = np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    w = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    y = reference.conv2d_fwd(x, w, np.array([0.5]))
    np.testing.assert_array_equal(y[0, :, :, 0], [[37.5, 47.5], [67.5, 77.5]])


@pytest.mark.parametrize("case", FUSED_CASES, ids=str)
def test_conv2d_relu_max_pool2d(case, random):
    x, w, b = random.normal(case.x), random.normal(case.w), random.normal(case.w[0])

    def f(x, w, b):
        return reference.conv2d_relu_max_pool2d_fwd(x, w, b, **case.fused_options)

    y, argmax = f(x, w, b)
    assert (y >= 0).all()
    np.testing.assert_array_equal(argmax == reference.pool.DEAD, y == 0)
    dy = random.normal(y.shape)
    dx, dw, db = reference.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, **case.fused_options)
    small = {"step": 1e-8, "rtol": 1e-5}  # stays clear of the kinks
    check_gradient(lambda x: f(x, w, b)[0], x, dy, dx, random, **small)
    check_gradient(lambda w: f(x, w, b)[0], w, dy, dw, random, **small)
    check_gradient(lambda b: f(x, w, b)[0], b, dy, db, random, **small)


@pytest.mark.parametrize("case", TRANSPOSE_CASES, ids=str)
def test_conv_transpose2d(case, random):
    x, w, b = random.normal(case.x), random.normal(case.w), random.normal(case.w[3])
    y = reference.conv_transpose2d_fwd(x, w, b, **case.options)
    dy = random.normal(y.shape)
    dx = reference.conv_transpose2d_dgrad(dy, w, x.shape, **case.options)
    dw = reference.conv_transpose2d_wgrad(dy, x, w.shape, **case.options)

    def f(x, w):
        return reference.conv_transpose2d_fwd(x, w, b, **case.options)

    check_gradient(lambda x: f(x, w), x, dy, dx, random)
    check_gradient(lambda w: f(x, w), w, dy, dw, random)


@pytest.mark.parametrize("case", POOL_CASES, ids=str)
def test_max_pool2d(case, random):
    x = random.distinct(case.x)
    y, argmax = reference.max_pool2d_fwd(x, case.kernel, **case.options)
    dy = random.normal(y.shape)
    dx = reference.max_pool2d_bwd(dy, argmax, x.shape, case.kernel, **case.options)
    check_gradient(
        lambda x: reference.max_pool2d_fwd(x, case.kernel, **case.options)[0], x, dy, dx, random
    )


def test_max_pool2d_takes_the_first_maximum_and_the_first_nan():
    x = np.array([[1, 3, 3, 0], [3, 2, 0, 0], [np.nan, 1, -1, -1], [9, np.nan, -1, -1]])
    y, argmax = reference.max_pool2d_fwd(x[None, :, :, None], 2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[3, 3], [np.nan, -1]])
    np.testing.assert_array_equal(argmax[0, :, :, 0], [[1, 0], [0, 0]])


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("case", POOL_CASES, ids=str)
def test_avg_pool2d(case, count_include_pad, random):
    options = {**case.options, "count_include_pad": count_include_pad}
    x = random.normal(case.x)
    y = reference.avg_pool2d_fwd(x, case.kernel, **options)
    dy = random.normal(y.shape)
    dx = reference.avg_pool2d_bwd(dy, x.shape, case.kernel, **options)
    check_gradient(lambda x: reference.avg_pool2d_fwd(x, case.kernel, **options), x, dy, dx, random)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm2d(training, random):
    x, gamma, beta = random.normal((3, 4, 2, 5)), random.normal(5), random.normal(5)
    running = random.normal(5), random.normal(5) ** 2 + 0.5

    def f(x, gamma, beta):
        fresh = [r.copy() for r in running]
        return reference.batch_norm2d_fwd(x, gamma, beta, *fresh, training=training, eps=0.1)

    y, mean, rstd = f(x, gamma, beta)
    dy = random.normal(y.shape)
    dx, dgamma, dbeta = reference.batch_norm2d_bwd(dy, x, gamma, mean, rstd, training=training)
    check_gradient(lambda x: f(x, gamma, beta)[0], x, dy, dx, random)
    check_gradient(lambda gamma: f(x, gamma, beta)[0], gamma, dy, dgamma, random)
    check_gradient(lambda beta: f(x, gamma, beta)[0], beta, dy, dbeta, random)


@pytest.mark.parametrize("training", [True, False])
def test_chain(training, random):
    kinds = [depthwise(4), dense(4, 3, 1, bias=True), dense(3, 2, stride=2, bias=True)]
    x, blocks = drawn((2, 5, 6, 4), kinds, random, np.float64, [training])

    def f(x, i=0, **changed):
        fresh = each(copied, blocks)
        fresh[i] = fresh[i]._replace(**changed)
        return reference.batch_norm2d_relu_conv2d_chain_fwd(x, fresh)

    kept = f(x)
    dy = random.normal(kept[-1][0].shape)
    dx, gradients = reference.batch_norm2d_relu_conv2d_chain_bwd(dy, x, blocks, kept)
    check_gradient(lambda x: f(x)[-1][0], x, dy, dx, random)
    for i, of_block in enumerate(gradients):
        for name, gradient in zip(("gamma", "beta", "w", "b"), of_block, strict=True):
            if gradient is None:
                continue
            given = getattr(blocks[i], name)

            def changed(value, i=i, name=name):
                return f(x, i, **{name: value})[-1][0]

            # A bias before batch normalisation in training changes nothing.
            if name == "b" and training and i < 2:
                np.testing.assert_allclose(gradient, 0, atol=1e-12)
            else:
                check_gradient(changed, given, dy, gradient, random)


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (reference.relu_fwd, lambda dy, x: reference.relu_bwd(dy, reference.relu_fwd(x))),
        (reference.softmax_fwd, lambda dy, x: reference.softmax_bwd(dy, reference.softmax_fwd(x))),
        (
            lambda x: reference.upsample2d_fwd(x, (2, 3)),
            lambda dy, x: reference.upsample2d_bwd(dy, (2, 3)),
        ),
        (
            reference.global_avg_pool2d_fwd,
            lambda dy, x: reference.global_avg_pool2d_bwd(dy, x.shape),
        ),
        (
            lambda x: reference.dropout_fwd(x, 0.3, seed=1, offset=2),
            lambda dy, x: reference.dropout_bwd(dy, 0.3, seed=1, offset=2),
        ),
    ],
    ids=["relu", "softmax", "upsample2d", "global_avg_pool2d", "dropout"],
)
def test_one_input(forward, backward, random):
    x = random.normal((2, 4, 6, 5))
    dy = random.normal(forward(x).shape)
    check_gradient(forward, x, dy, backward(dy, x), random)


def test_linear(random):
    x, w, b = random.normal((4, 7)), random.normal((5, 7)), random.normal(5)
    dy = random.normal((4, 5))

    def f(x, w, b):
        return reference.linear_fwd(x, w, b)

    check_gradient(lambda x: f(x, w, b), x, dy, reference.linear_dgrad(dy, w), random)
    check_gradient(lambda w: f(x, w, b), w, dy, reference.linear_wgrad(dy, x), random)
    check_gradient(lambda b: f(x, w, b), b, dy, reference.linear_bgrad(dy), random)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["ids", "probabilities"])
def test_cross_entropy(kind, weighted, label_smoothing, random):
    logits = random.normal((6, 4))
    target = np.array([0, 3, 1, -100, 2, 3])
    if kind == "probabilities":
        target = reference.softmax_fwd(random.normal((6, 4)))
    options = {
        "weight": np.array([0.5, 2.0, 1.0, 0.1]) if weighted else None,
        "label_smoothing": label_smoothing,
    }
    _, saved = reference.cross_entropy_fwd(logits, target, **options)
    dlogits = reference.cross_entropy_bwd(saved)
    check_gradient(
        lambda x: reference.cross_entropy_fwd(x, target, **options)[0],
        logits,
        np.array(1.0),
        dlogits,
        random,
    )


def test_mse(random):
    y, target = random.normal((3, 4)), random.normal((3, 4))
    check_gradient(
        lambda y: reference.mse_fwd(y, target),
        y,
        np.array(1.0),
        reference.mse_bwd(y, target),
        random,
    )


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        (0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (2**128 - 1, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            0x03707344_13198A2E_85A308D3_243F6A88,
            0x299F31D0_A4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_known_answers(counter, key, words):
    """From Random123's kat_vectors (https://github.com/DEShawResearch/random123)."""
    counters = np.array([[(counter >> shift) & 0xFFFFFFFF] for shift in (0, 32, 64, 96)])
    got = reference.dropout.philox4x32(counters, key)
    assert " ".join(f"{int(word):08x}" for word in got[:, 0]) == words


def test_dropout_keeps_the_right_share():
    kept = reference.dropout.kept((40000,), 0.3, seed=5, offset=0)
    assert abs(kept.mean() - 0.7) < 0.01
