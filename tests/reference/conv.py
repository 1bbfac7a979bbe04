"""Convolutions, and what is made of them.

y[n, p, q, k] = b[k] + sum over r, s, c of w[k, r, s, c] x[n, h, v, c], with
h = p * stride + r * dilation - top and v = q * stride + s * dilation - left.
"""

from __future__ import annotations

import numpy as np

from reference.pool import max_pool2d_bwd, max_pool2d_fwd
from reference.windows import Windows, pair


def split(x, groups):
    """(..., C) -> (..., groups, C / groups)."""
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def by_group(w, groups):
    """(K, R, S, C / groups) -> (groups, K / groups, R, S, C / groups)."""
    return w.reshape(groups, w.shape[0] // groups, *w.shape[1:])


def conv2d_fwd(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None):
    x, w = np.float64(x), np.float64(w)
    windows = Windows(x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    xp, wg = split(windows.pad(x), groups), by_group(w, groups)
    y = np.zeros((x.shape[0], *windows.output_size, *wg.shape[:2]))
    for r, s in windows.taps():
        y += np.einsum("npqgc,gkc->npqgk", xp[windows.seen_by(r, s)], wg[:, :, r, s])
    y = y.reshape(*y.shape[:3], w.shape[0])
    if b is not None:
        y = y + np.float64(b)
    if activation == "relu":
        y = np.where(y < 0, 0.0, y)
    return y


def conv2d_dgrad(dy, w, x_shape, *, stride=1, padding=0, dilation=1, groups=1):
    dy, w = np.float64(dy), np.float64(w)
    windows = Windows(x_shape[1:3], w.shape[1:3], stride, padding, dilation)
    dyg, wg = split(dy, groups), by_group(w, groups)
    dxp = split(windows.zeros_padded(x_shape[0], x_shape[3]), groups)
    for r, s in windows.taps():
        dxp[windows.seen_by(r, s)] += np.einsum("npqgk,gkc->npqgc", dyg, wg[:, :, r, s])
    return windows.crop(dxp.reshape(*dxp.shape[:3], x_shape[3]))


def conv2d_wgrad(dy, x, w_shape, *, stride=1, padding=0, dilation=1, groups=1):
    dy, x = np.float64(dy), np.float64(x)
    windows = Windows(x.shape[1:3], w_shape[1:3], stride, padding, dilation)
    dyg, xp = split(dy, groups), split(windows.pad(x), groups)
    dw = np.zeros(by_group(np.empty(w_shape), groups).shape)
    for r, s in windows.taps():
        dw[:, :, r, s] = np.einsum("npqgk,npqgc->gkc", dyg, xp[windows.seen_by(r, s)])
    return dw.reshape(w_shape)


def conv2d_bgrad(dy):
    return np.float64(dy).sum(axis=(0, 1, 2))


def conv2d_relu_max_pool2d_fwd(x, w, b=None, *, pool=2, stride=1, padding=0):
    """255 marks windows whose largest value before ReLU is <= 0; NaN is never dead."""
    z = conv2d_fwd(x, w, b, stride=stride, padding=padding)
    largest, argmax = max_pool2d_fwd(z, pool)
    dead = largest <= 0
    return np.where(dead, 0.0, largest), np.where(dead, 255, argmax).astype(argmax.dtype)


def conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, *, pool=2, stride=1, padding=0, need_dx=True):
    windows = Windows(x.shape[1:3], w.shape[1:3], stride, padding)
    z_shape = (x.shape[0], *windows.output_size, w.shape[0])
    dz = max_pool2d_bwd(dy, argmax, z_shape, pool)
    dx = conv2d_dgrad(dz, w, x.shape, stride=stride, padding=padding) if need_dx else None
    return dx, conv2d_wgrad(dz, x, w.shape, stride=stride, padding=padding), conv2d_bgrad(dz)


# A transposed convolution is the dgrad of the convolution that leads from its output to its input.


def transposed_shape(x_shape, w_shape, stride, padding, output_padding):
    if padding == "same":
        size = [n * s for n, s in zip(x_shape[1:3], pair(stride), strict=True)]
        return (x_shape[0], *size, w_shape[3])
    pads = Windows((1, 1), w_shape[1:3], 1, padding).pads
    size = [
        (n - 1) * s - sum(pad) + k + extra
        for n, s, pad, k, extra in zip(
            x_shape[1:3], pair(stride), pads, w_shape[1:3], pair(output_padding), strict=True
        )
    ]
    return (x_shape[0], *size, w_shape[3])


def conv_transpose2d_fwd(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    y_shape = transposed_shape(x.shape, w.shape, stride, padding, output_padding)
    y = conv2d_dgrad(x, w, y_shape, stride=stride, padding=padding)
    return y if b is None else y + np.float64(b)


def conv_transpose2d_dgrad(dy, w, x_shape, *, stride=1, padding=0, output_padding=0):
    assert dy.shape == transposed_shape(x_shape, w.shape, stride, padding, output_padding)
    return conv2d_fwd(dy, w, stride=stride, padding=padding)


def conv_transpose2d_wgrad(dy, x, w_shape, *, stride=1, padding=0, output_padding=0):
    assert dy.shape == transposed_shape(x.shape, w_shape, stride, padding, output_padding)
    return conv2d_wgrad(x, dy, w_shape, stride=stride, padding=padding)
