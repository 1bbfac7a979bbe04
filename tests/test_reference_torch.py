"""The reference against PyTorch in float64: forward, and backward by its autograd."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from shapes import CONV_CASES, FUSED_CASES, POOL_CASES, TRANSPOSE_CASES

torch = pytest.importorskip("torch")
F = torch.nn.functional


def leaf(x):
    return torch.from_numpy(x.copy()).requires_grad_()


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def padded(x, pads, value=0.0):
    (top, bottom), (left, right) = pads
    return F.pad(nchw(x), (left, right, top, bottom), value=value)


def close(got, want):
    want = want.detach().numpy() if isinstance(want, torch.Tensor) else want
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-11)


def torch_conv2d(case, x, w, b):
    windows = reference.windows.Windows(
        x.shape[1:3], w.shape[1:3], case.stride, case.padding, case.dilation
    )
    y = F.conv2d(padded(x, windows.pads), nchw(w), b, case.stride, 0, case.dilation, case.groups)
    return nhwc(y)


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_conv2d(case, random):
    x, w, b = random.normal(case.x), random.normal(case.w), random.normal(case.w[0])
    tx, tw, tb = leaf(x), leaf(w), leaf(b)
    want = torch_conv2d(case, tx, tw, tb)
    close(reference.conv2d_fwd(x, w, b, **case.options), want)
    dy = random.normal(want.shape)
    want.backward(torch.from_numpy(dy))
    close(reference.conv2d_dgrad(dy, w, x.shape, **case.options), tx.grad)
    close(reference.conv2d_wgrad(dy, x, w.shape, **case.options), tw.grad)
    close(reference.conv2d_bgrad(dy), tb.grad)


@pytest.mark.parametrize("case", FUSED_CASES, ids=str)
def test_conv2d_relu_max_pool2d(case, random):
    x, w, b = random.normal(case.x), random.normal(case.w), random.normal(case.w[0])
    tx, tw, tb = leaf(x), leaf(w), leaf(b)
    z = torch.relu(torch_conv2d(case, tx, tw, tb))
    want = nhwc(F.max_pool2d(nchw(z), case.pool))
    y, argmax = reference.conv2d_relu_max_pool2d_fwd(x, w, b, **case.fused_options)
    close(y, want)
    dy = random.normal(want.shape)
    want.backward(torch.from_numpy(dy))
    got = reference.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, **case.fused_options)
    for gradient, t in zip(got, (tx, tw, tb), strict=True):
        close(gradient, t.grad)


# Torch's takes neither uneven padding nor "same".
SYMMETRIC_TRANSPOSE_CASES = [
    c for c in TRANSPOSE_CASES if c.name != "asymmetric_pad" and c.options.get("padding") != "same"
]


@pytest.mark.parametrize("case", SYMMETRIC_TRANSPOSE_CASES, ids=str)
def test_conv_transpose2d(case, random):
    x, w, b = random.normal(case.x), random.normal(case.w), random.normal(case.w[3])
    tx, tw, tb = leaf(x), leaf(w), leaf(b)
    want = nhwc(F.conv_transpose2d(nchw(tx), nchw(tw), tb, **case.options))
    close(reference.conv_transpose2d_fwd(x, w, b, **case.options), want)
    dy = random.normal(want.shape)
    want.backward(torch.from_numpy(dy))
    close(reference.conv_transpose2d_dgrad(dy, w, x.shape, **case.options), tx.grad)
    close(reference.conv_transpose2d_wgrad(dy, x, w.shape, **case.options), tw.grad)


@pytest.mark.parametrize("case", POOL_CASES, ids=str)
def test_pools(case, random):
    stride, padding = case.options.get("stride"), case.options.get("padding", 0)
    windows = reference.pool.windows_of_pool(case.x[1:3], case.kernel, stride, padding)

    x = random.normal(case.x)
    tx = leaf(x)
    lowest = padded(tx, windows.pads, -np.inf)
    want = nhwc(F.max_pool2d(lowest, case.kernel, stride))
    y, argmax = reference.max_pool2d_fwd(x, case.kernel, **case.options)
    close(y, want)
    dy = random.normal(y.shape)
    want.backward(torch.from_numpy(dy))
    close(reference.max_pool2d_bwd(dy, argmax, x.shape, case.kernel, **case.options), tx.grad)

    tx = leaf(x)
    want = nhwc(F.avg_pool2d(padded(tx, windows.pads), case.kernel, stride))
    close(reference.avg_pool2d_fwd(x, case.kernel, **case.options), want)
    want.backward(torch.from_numpy(dy))
    close(reference.avg_pool2d_bwd(dy, x.shape, case.kernel, **case.options), tx.grad)


def test_avg_pool2d_without_padding_counted(random):
    x = random.normal((2, 7, 6, 3))
    want = nhwc(F.avg_pool2d(nchw(leaf(x)), 3, 2, 1, count_include_pad=False))
    options = {"stride": 2, "padding": 1, "count_include_pad": False}
    close(reference.avg_pool2d_fwd(x, 3, **options), want)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm2d(training, random):
    x, gamma, beta = random.normal((3, 4, 2, 5)), random.normal(5), random.normal(5)
    running = [random.normal(5), random.normal(5) ** 2]
    expected = [torch.from_numpy(r.copy()) for r in running]
    tx, tgamma, tbeta = leaf(x), leaf(gamma), leaf(beta)
    want = nhwc(F.batch_norm(nchw(tx), *expected, tgamma, tbeta, training, 0.2, 1e-3))
    y, mean, rstd = reference.batch_norm2d_fwd(
        x, gamma, beta, *running, training=training, momentum=0.2, eps=1e-3
    )
    close(y, want)
    for got, updated in zip(running, expected, strict=True):
        close(got, updated)
    dy = random.normal(x.shape)
    want.backward(torch.from_numpy(dy))
    got = reference.batch_norm2d_bwd(dy, x, gamma, mean, rstd, training=training)
    for gradient, t in zip(got, (tx, tgamma, tbeta), strict=True):
        close(gradient, t.grad)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["ids", "probabilities"])
def test_cross_entropy(kind, weighted, label_smoothing, random):
    logits = random.normal((6, 4))
    target = np.array([0, 3, 1, -100, 2, 3])
    if kind == "probabilities":
        target = reference.softmax_fwd(random.normal((6, 4)))
    weight = np.array([0.5, 2.0, 1.0, 0.1]) if weighted else None
    tx = leaf(logits)
    want = F.cross_entropy(
        tx,
        torch.from_numpy(target),
        None if weight is None else torch.from_numpy(weight),
        label_smoothing=label_smoothing,
    )
    loss, saved = reference.cross_entropy_fwd(
        logits, target, weight=weight, label_smoothing=label_smoothing
    )
    close(loss, want)
    want.backward()
    close(reference.cross_entropy_bwd(saved), tx.grad)


def test_softmax_mse_relu_linear_upsample(random):
    x, w, b = random.normal((4, 7)), random.normal((5, 7)), random.normal(5)
    t = torch.from_numpy
    close(reference.softmax_fwd(x), F.softmax(t(x), -1))
    close(reference.relu_fwd(x), F.relu(t(x)))
    close(reference.linear_fwd(x, w, b), F.linear(t(x), t(w), t(b)))
    close(reference.mse_fwd(x, x[::-1].copy()), F.mse_loss(t(x), t(x[::-1].copy())))
    image = random.normal((2, 3, 4, 5))
    want = nhwc(F.interpolate(nchw(t(image)), scale_factor=(2, 3), mode="nearest"))
    close(reference.upsample2d_fwd(image, (2, 3)), want)


STEPPERS = {
    "sgd": (torch.optim.SGD, {}),
    "sgd_momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "sgd_nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "sgd_decay": (torch.optim.SGD, {"momentum": 0.5, "weight_decay": 0.1}),
    "adam": (torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-6}),
    "adam_decay": (torch.optim.Adam, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", STEPPERS)
def test_steps(name, random):
    make, options = STEPPERS[name]
    params = [random.normal((3, 4)), random.normal(5)]
    expected = [leaf(p) for p in params]
    optimizer = make(expected, lr=0.01, **options)
    state = [[np.zeros_like(p) for p in params] for _ in range(2)]
    for step in range(1, 6):
        grads = [random.normal(p.shape) for p in params]
        for t, grad in zip(expected, grads, strict=True):
            t.grad = torch.from_numpy(grad)
        optimizer.step()
        if name.startswith("sgd"):
            reference.sgd_step(params, grads, state[0], lr=0.01, **options)
        else:
            decoupled = name == "adamw"
            reference.adam_step(
                params, grads, *state, step, lr=0.01, decoupled=decoupled, **options
            )
        for p, t in zip(params, expected, strict=True):
            close(p, t)
