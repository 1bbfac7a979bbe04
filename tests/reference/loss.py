"""Softmax, mean squared error, and cross entropy as torch.nn.functional.cross_entropy."""

from __future__ import annotations

import numpy as np


def log_softmax(x):
    x = np.float64(x)
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax_fwd(x):
    return np.exp(log_softmax(x))


def softmax_bwd(dy, y):
    dy, y = np.float64(dy), np.float64(y)
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def target_weights(classes, target, weight, label_smoothing, ignore_index):
    """(N, classes): the factor of -log p[n, c] in the loss, its mean's divisor included."""
    weight = np.ones(classes) if weight is None else np.float64(weight)
    n = target.shape[0]
    if target.ndim == 2:
        smooth = np.float64(target) * (1 - label_smoothing) + label_smoothing / classes
        return smooth * weight / n if n else smooth
    share = np.zeros((n, classes))
    total = 0.0
    for i, label in enumerate(target):
        if label != ignore_index:
            share[i] = weight * label_smoothing / classes
            share[i, label] += weight[label] * (1 - label_smoothing)
            total += weight[label]
    return share / total if total else share


def cross_entropy_fwd(logits, target, *, weight=None, label_smoothing=0.0, ignore_index=-100):
    share = target_weights(logits.shape[1], target, weight, label_smoothing, ignore_index)
    terms = np.where(share == 0, 0.0, -share * log_softmax(logits)) if logits.size else share
    return terms.sum(), (np.float64(logits), share)


def cross_entropy_bwd(saved, *, scale=1.0):
    logits, share = saved
    if not logits.size:
        return logits * 0.0
    return scale * (share.sum(axis=1, keepdims=True) * softmax_fwd(logits) - share)


def mse_fwd(y, target):
    return ((np.float64(y) - np.float64(target)) ** 2).mean()


def mse_bwd(y, target):
    return 2 * (np.float64(y) - np.float64(target)) / y.size
