"""Chains of batch normalisation, ReLU and convolution: drawn, and called with arrays in one row."""

from __future__ import annotations

from itertools import chain

import numpy as np

import reference
from numerics import wide
from stapes.ops import NormConv

FWD, BWD = "batch_norm2d_relu_conv2d_chain_fwd", "batch_norm2d_relu_conv2d_chain_bwd"
ARRAYS = 6  # of a block: gamma, beta, running_mean, running_var, w, b


def dense(c, k, size=3, **options):
    """(K, R, S, C / groups) and what else a block is drawn with: ``bias`` and its window."""
    return (k, size, size, c), {"padding": size // 2, **options}


def depthwise(c, size=(3, 3), **options):
    return (c, *size, 1), {"padding": 1, "groups": c, **options}


def settings_of(block):
    """The keywords of one block's operator."""
    return dict(zip(NormConv._fields[ARRAYS:], block[ARRAYS:], strict=True))


def drawn(shape, kinds, random, dtype, training=(True,), forward=None):
    """x and blocks, whose normalised values are all so far from 0 that rounding keeps their sign.

    ``training`` takes turns; ``forward(x, block)`` is the convolution of a block, the reference's
    where it is not given.
    """
    x = given = random.normal(shape, dtype)
    blocks = []
    for i, (w_shape, options) in enumerate(kinds):
        window = dict(options)
        bias = random.normal(w_shape[0], wide(dtype)) if window.pop("bias", False) else None
        w = random.normal(w_shape) / np.sqrt(np.prod(w_shape[1:]))
        gamma, mean, var = (random.normal(given.shape[-1], wide(dtype)) for _ in range(3))
        gamma += np.copysign(0.5, gamma, dtype=gamma.dtype)
        numbers = {"momentum": 0.5 / (i + 1), "eps": 1e-5 * (i + 1)}
        block = NormConv(
            gamma, 0 * gamma, mean, var**2 + gamma.dtype.type(0.5), w.astype(dtype), bias,
            training=training[i % len(training)], **numbers, **window,
        )  # fmt: skip
        z = normalised(given, block)
        blocks.append(block._replace(beta=-far_from_all(z).astype(gamma.dtype)))
        given = (forward or rounded_reference)(given, blocks[-1])
    return x, blocks


def normalised(x, block):
    running = (r.copy() for r in block[2:4])
    training, _, eps = block[ARRAYS : ARRAYS + 3]
    z, *_ = reference.batch_norm2d_fwd(x, *block[:2], *running, training=training, eps=eps)
    return z


def far_from_all(z):
    """A number for each channel: the middle of the widest gap but at the ends."""
    z = np.sort(z.reshape(-1, z.shape[-1]), axis=0)
    z = z[len(z) // 8 : -(len(z) // 8)]
    widest = np.diff(z, axis=0).argmax(axis=0)[None]
    below, above = (np.take_along_axis(z, widest + i, 0)[0] for i in (0, 1))
    return (below + above) / 2


def rounded_reference(x, block):
    arrays = [a if a is None else a.copy() for a in block[:ARRAYS]]
    y, _ = reference.batch_norm2d_relu_conv2d_fwd(x, *arrays, **settings_of(block))
    return y.astype(x.dtype)


def flat_fwd(ops):
    """The forward of x and `ARRAYS` for each block, with y and norm of each in one tuple."""

    def call(x, *arrays, settings, **keywords):
        rows = zip(*(arrays[i::ARRAYS] for i in range(ARRAYS)), strict=True)
        blocks = [NormConv(*row, **s) for row, s in zip(rows, settings, strict=True)]
        out = keywords.get("out")
        if isinstance(out, tuple) and len(out) == 2 * len(blocks):
            keywords["out"] = list(zip(out[::2], out[1::2], strict=True))
        return tuple(chain(*getattr(ops, FWD)(x, blocks, **keywords)))

    return call


def flat_bwd(ops):
    """The backward of dy, x, gamma, norm and w of each block, and each y but the last."""

    def call(dy, x, *arrays, settings, biased, **keywords):
        n = len(settings)
        gammas, norms, ws = (arrays[i : 3 * n : 3] for i in range(3))
        blocks = [
            NormConv(gamma, None, None, None, w, gamma if b else None, **s)
            for gamma, w, b, s in zip(gammas, ws, biased, settings, strict=True)
        ]
        kept = list(zip((*arrays[3 * n :], dy), norms, strict=True))  # the last y is not read
        out = keywords.get("out")
        if isinstance(out, tuple) and len(out) == 1 + 3 * n + sum(biased):
            left = iter(out)
            dx = next(left)
            each = [tuple(next(left) if i < 3 + b else None for i in range(4)) for b in biased]
            keywords["out"] = dx, each
        dx, gradients = getattr(ops, BWD)(dy, x, blocks, kept, **keywords)
        return dx, *(g for g in chain(*gradients) if g is not None)

    return call


def running(args):
    """Positions of the running values among the arguments of `flat_fwd`."""
    return tuple(i for i in range(1, len(args)) if i % ARRAYS in (3, 4))


FLAT = {FWD: flat_fwd, BWD: flat_bwd}
