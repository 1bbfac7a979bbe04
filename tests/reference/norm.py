"""Batch normalisation over (N, H, W) (Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167)."""

from __future__ import annotations

import numpy as np

from reference.conv import conv2d_bgrad, conv2d_dgrad, conv2d_fwd, conv2d_wgrad
from reference.pool import (
    global_avg_pool2d_bwd,
    global_avg_pool2d_fwd,
    max_pool2d_bwd,
    max_pool2d_fwd,
)

OVER = (0, 1, 2)


def batch_norm2d_fwd(
    x, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5
):
    """As in PyTorch, running_mean and running_var are updated in place in training."""
    x = np.float64(x)
    if training:
        mean, var = x.mean(axis=OVER), x.var(axis=OVER)
        count = x.size // x.shape[-1]
        running_mean[...] = (1 - momentum) * running_mean + momentum * mean
        running_var[...] = (1 - momentum) * running_var + momentum * var * count / (count - 1)
    else:
        mean, var = np.float64(running_mean), np.float64(running_var)
    rstd = 1 / np.sqrt(var + eps)
    return (x - mean) * rstd * np.float64(gamma) + np.float64(beta), mean, rstd


def batch_norm2d_bwd(dy, x, gamma, mean, rstd, *, training=True):
    dy, x = np.float64(dy), np.float64(x)
    gamma, mean, rstd = np.float64(gamma), np.float64(mean), np.float64(rstd)
    normal = (x - mean) * rstd
    dgamma, dbeta = (dy * normal).sum(axis=OVER), dy.sum(axis=OVER)
    dnormal = dy
    if training:
        dnormal = dy - dy.mean(axis=OVER) - normal * (dy * normal).mean(axis=OVER)
    return dnormal * rstd * gamma, dgamma, dbeta


def batch_norm2d_relu_max_pool2d_fwd(
    x, gamma, beta, running_mean, running_var, *, pool=2, **options
):
    """255 marks windows whose largest value before ReLU is <= 0; NaN is never dead."""
    z, mean, rstd = batch_norm2d_fwd(x, gamma, beta, running_mean, running_var, **options)
    largest, argmax = max_pool2d_fwd(z, pool)
    dead = largest <= 0
    argmax = np.where(dead, 255, argmax).astype(argmax.dtype)
    return np.where(dead, 0.0, largest), argmax, mean, rstd


def batch_norm2d_relu_max_pool2d_bwd(dy, argmax, x, gamma, mean, rstd, *, pool=2, training=True):
    dz = max_pool2d_bwd(dy, argmax, x.shape, pool)
    return batch_norm2d_bwd(dz, x, gamma, mean, rstd, training=training)


def batch_norm2d_relu_global_avg_pool2d_fwd(
    x, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5
):
    """alive: the share of pixels that pass, and the mean of x - mean over them; NaN passes."""
    z, mean, rstd = batch_norm2d_fwd(
        x, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps
    )
    alive = ~(z <= 0)
    share = alive.mean(axis=(1, 2))
    distance = np.where(alive, np.float64(x) - mean, 0.0).mean(axis=(1, 2))
    distance = np.divide(distance, share, out=np.zeros_like(share), where=share > 0)
    norm = np.stack([mean, rstd * gamma, np.float64(beta), rstd])
    return global_avg_pool2d_fwd(relu(z)), norm, np.stack([share, distance])


def batch_norm2d_relu_global_avg_pool2d_bwd(dy, x, gamma, norm, alive, *, training=True):
    mean, scale, shift, rstd = np.float64(norm)
    z = (np.float64(x) - mean) * scale + shift
    dz = np.where(z <= 0, 0.0, global_avg_pool2d_bwd(dy, x.shape))
    return batch_norm2d_bwd(dz, x, gamma, mean, rstd, training=training)


def batch_norm2d_relu_conv2d_fwd(
    x, gamma, beta, running_mean, running_var, w, b=None, *, training, momentum=0.1, eps=1e-5,
    **window,
):  # fmt: skip
    """norm: mean, and scale, shift and rstd of z = (x - mean) * scale + shift."""
    z, mean, rstd = batch_norm2d_fwd(
        x, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps
    )
    norm = np.stack([mean, rstd * gamma, np.float64(beta), rstd])
    return conv2d_fwd(relu(z), w, b, **window), norm


def batch_norm2d_relu_conv2d_bwd(dy, x, gamma, norm, w, *, training=True, need_db=True, **window):
    mean, scale, shift, rstd = np.float64(norm)
    z = (np.float64(x) - mean) * scale + shift
    dz = np.where(z <= 0, 0.0, conv2d_dgrad(dy, w, x.shape, **window))
    dw = conv2d_wgrad(dy, relu(z), w.shape, **window)
    db = conv2d_bgrad(dy) if need_db else None
    return *batch_norm2d_bwd(dz, x, gamma, mean, rstd, training=training), dw, db


def batch_norm2d_relu_conv2d_chain_fwd(x, blocks):
    kept = []
    for block in blocks:
        kept.append(batch_norm2d_relu_conv2d_fwd(x, **block._asdict()))
        x = kept[-1][0]
    return kept


def batch_norm2d_relu_conv2d_chain_bwd(dy, x, blocks, kept):
    window = ("training", "stride", "padding", "dilation", "groups")
    inputs, gradients = [x, *(y for y, _ in kept)], []
    for i in reversed(range(len(blocks))):
        block, options = blocks[i], {name: getattr(blocks[i], name) for name in window}
        args = inputs[i], block.gamma, kept[i][1], block.w
        options["need_db"] = block.b is not None
        dy, *of_block = batch_norm2d_relu_conv2d_bwd(dy, *args, **options)
        gradients.insert(0, tuple(of_block))
    return dy, gradients


def conv2d_batch_norm2d_relu_max_pool2d_fwd(
    x, w, b, gamma, beta, running_mean, running_var, *, training, pool=2, momentum=0.1, eps=1e-5,
    **window,
):  # fmt: skip
    return batch_norm2d_relu_max_pool2d_fwd(
        conv2d_fwd(x, w, b, **window), gamma, beta, running_mean, running_var,
        training=training, pool=pool, momentum=momentum, eps=eps,
    )  # fmt: skip


def conv2d_batch_norm2d_relu_max_pool2d_bwd(
    dy, argmax, x, w, b, gamma, mean, rstd, *, training=True, pool=2, **window
):
    u = conv2d_fwd(x, w, b, **window)
    du, dgamma, dbeta = batch_norm2d_relu_max_pool2d_bwd(
        dy, argmax, u, gamma, mean, rstd, pool=pool, training=training
    )
    dw = conv2d_wgrad(du, x, w.shape, **window)
    return dw, dgamma, dbeta, None if b is None else conv2d_bgrad(du)


def relu(z):
    return np.where(z <= 0, 0.0, z)
