"""Pooling and upsampling. argmax is r * kernel_w + s in the window; first maximum, first NaN."""

from __future__ import annotations

import numpy as np

from reference.windows import Windows, pair

DEAD = 255


def windows_of_pool(size, kernel, stride, padding):
    return Windows(size, kernel, kernel if stride is None else stride, padding)


def max_pool2d_fwd(x, kernel, *, stride=None, padding=0):
    x = np.float64(x)
    windows = windows_of_pool(x.shape[1:3], kernel, stride, padding)
    xp, inside = windows.pad(x), windows.pad(np.ones(x.shape))
    y = np.zeros((x.shape[0], *windows.output_size, x.shape[3]))
    argmax = np.full(y.shape, -1)
    for place, (r, s) in enumerate(windows.taps()):
        value = xp[windows.seen_by(r, s)]
        first = argmax < 0
        larger = (value > y) | (np.isnan(value) & ~np.isnan(y))
        take = (inside[windows.seen_by(r, s)] == 1) & (first | larger)
        y, argmax = np.where(take, value, y), np.where(take, place, argmax)
    places = windows.kernel[0] * windows.kernel[1]
    return y, argmax.astype(np.uint8 if places <= 255 else np.int32)


def max_pool2d_bwd(dy, argmax, x_shape, kernel, *, stride=None, padding=0):
    windows = windows_of_pool(x_shape[1:3], kernel, stride, padding)
    dxp = windows.zeros_padded(x_shape[0], x_shape[3])
    for place, (r, s) in enumerate(windows.taps()):
        dxp[windows.seen_by(r, s)] += np.where(argmax == place, np.float64(dy), 0.0)
    return windows.crop(dxp)


def places_averaged(windows, count_include_pad):
    """(1, P, Q, 1): how many places of each window count."""
    ones = np.ones((1, *windows.size, 1))
    padded = windows.pad(ones, 1.0 if count_include_pad else 0.0)
    return sum(padded[windows.seen_by(r, s)] for r, s in windows.taps())


def avg_pool2d_fwd(x, kernel, *, stride=None, padding=0, count_include_pad=True):
    x = np.float64(x)
    windows = windows_of_pool(x.shape[1:3], kernel, stride, padding)
    xp = windows.pad(x)
    total = sum(xp[windows.seen_by(r, s)] for r, s in windows.taps())
    return total / places_averaged(windows, count_include_pad)


def avg_pool2d_bwd(dy, x_shape, kernel, *, stride=None, padding=0, count_include_pad=True):
    windows = windows_of_pool(x_shape[1:3], kernel, stride, padding)
    share = np.float64(dy) / places_averaged(windows, count_include_pad)
    dxp = windows.zeros_padded(x_shape[0], x_shape[3])
    for r, s in windows.taps():
        dxp[windows.seen_by(r, s)] += share
    return windows.crop(dxp)


def global_avg_pool2d_fwd(x):
    return np.float64(x).mean(axis=(1, 2))


def global_avg_pool2d_bwd(dy, x_shape):
    share = np.float64(dy) / (x_shape[1] * x_shape[2])
    return np.broadcast_to(share[:, None, None, :], x_shape).copy()


def upsample2d_fwd(x, scale):
    rows, columns = pair(scale)
    return np.float64(x).repeat(rows, axis=1).repeat(columns, axis=2)


def upsample2d_bwd(dy, scale):
    rows, columns = pair(scale)
    n, h, w, c = dy.shape
    blocks = np.float64(dy).reshape(n, h // rows, rows, w // columns, columns, c)
    return blocks.sum(axis=(2, 4))
