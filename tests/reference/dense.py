"""ReLU and the linear layer: y = x w^T + b with w (out, in)."""

from __future__ import annotations

import numpy as np


def relu_fwd(x):
    x = np.float64(x)
    return np.where(x < 0, 0.0, x)  # NaN stays NaN


def relu_bwd(dy, y):
    return np.where(np.float64(y) > 0, np.float64(dy), 0.0)


def linear_fwd(x, w, b=None, *, activation=None):
    y = np.float64(x) @ np.float64(w).T
    if b is not None:
        y = y + np.float64(b)
    return relu_fwd(y) if activation == "relu" else y


def linear_dgrad(dy, w):
    return np.float64(dy) @ np.float64(w)


def linear_wgrad(dy, x):
    return np.float64(dy).T @ np.float64(x)


def linear_bgrad(dy):
    return np.float64(dy).sum(axis=0)
