"""Output sizes, padding, and the strided views through which a tap (r, s) sees its input."""

from __future__ import annotations

import numpy as np


def pair(value):
    return (value, value) if isinstance(value, int | np.integer) else tuple(value)


def pads_of(padding, size, kernel, stride, dilation):
    """Return ((top, bottom), (left, right)); "same" as TensorFlow, the odd pixel at the end."""
    if padding == "valid":
        return ((0, 0), (0, 0))
    if padding == "same":
        pads = []
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
            total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            pads.append((total // 2, total - total // 2))
        return tuple(pads)
    if isinstance(padding, int):
        return ((padding, padding), (padding, padding))
    return tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)


class Windows:
    """All windows of a kernel over (H, W): where each tap reads in the padded input."""

    def __init__(self, size, kernel, stride=1, padding=0, dilation=1):
        self.size, self.kernel = tuple(size), pair(kernel)
        self.stride, self.dilation = pair(stride), pair(dilation)
        self.pads = pads_of(padding, self.size, self.kernel, self.stride, self.dilation)
        self.output_size = tuple(
            (n + sum(pad) - d * (k - 1) - 1) // s + 1
            for n, pad, k, s, d in zip(
                self.size, self.pads, self.kernel, self.stride, self.dilation, strict=True
            )
        )

    def taps(self):
        return [(r, s) for r in range(self.kernel[0]) for s in range(self.kernel[1])]

    def seen_by(self, r, s):
        """Index of the padded (N, H, W, C) that gives the (N, P, Q, C) which tap (r, s) reads."""
        rows, columns = (
            slice(tap * d, tap * d + (n - 1) * step + 1, step)
            for tap, d, step, n in zip(
                (r, s), self.dilation, self.stride, self.output_size, strict=True
            )
        )
        return (slice(None), rows, columns)

    def pad(self, x, value=0.0):
        return np.pad(x, ((0, 0), *self.pads, (0, 0)), constant_values=value)

    def crop(self, padded):
        (top, _), (left, _) = self.pads
        return padded[:, top : top + self.size[0], left : left + self.size[1]]

    def zeros_padded(self, n, c):
        (top, bottom), (left, right) = self.pads
        return np.zeros((n, self.size[0] + top + bottom, self.size[1] + left + right, c))
