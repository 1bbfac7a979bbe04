"""One good call, or a few, of every operator: for what all of them owe their caller alike."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import chains
import reference
from chains import dense, depthwise
from devices import UPDATED, copied, each
from numerics import Random, wide
from stapes.audio import LogMel


@dataclass(frozen=True)
class Call:
    """``getattr(ops, op)(*args, **kwargs)``."""

    op: str
    args: tuple | Callable  # or a function from the operators to the arguments
    kwargs: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    in_place: tuple[int, ...] = ()  # positions of the arguments that out may be exactly

    def arguments(self, ops):
        """Fresh copies of the arguments."""
        if callable(self.args):
            return list(self.args(ops))
        return list(each(copied, self.args))

    def __call__(self, ops, args=None, **more):
        args = self.arguments(ops) if args is None else args
        flat = chains.FLAT.get(self.op)
        function = getattr(ops, self.op) if flat is None else flat(ops)
        return function(*args, **self.kwargs, **more)

    def results(self, ops, args=None, **more):
        """All arrays that come out, those updated in place included."""
        args = self.arguments(ops) if args is None else args
        result = self(ops, args, **more)
        out = list(result) if isinstance(result, tuple) else [result]
        if self.op == "cross_entropy_fwd":
            out = out[:1]
        for i in self.updated:
            out += args[i] if isinstance(args[i], list) else [args[i]]
        return [y for y in out if y is not None]

    @property
    def updated(self):
        """Positions of the arguments that it updates in place."""
        if "evaluation" in self.note:
            return ()
        return chains.running(self.args) if self.op == chains.FWD else UPDATED.get(self.op, ())

    @property
    def gives_tuple(self):
        return self.op in GIVES_TUPLE

    def __str__(self):
        return self.op + (f"-{self.note}" if self.note else "")


GIVES_TUPLE = {
    "conv2d_relu_max_pool2d_fwd",
    "conv2d_relu_max_pool2d_bwd",
    "max_pool2d_fwd",
    "batch_norm2d_fwd",
    "batch_norm2d_bwd",
    "batch_norm2d_relu_conv2d_fwd",
    "batch_norm2d_relu_conv2d_bwd",
    *chains.FLAT,
    "batch_norm2d_relu_global_avg_pool2d_fwd",
    "batch_norm2d_relu_global_avg_pool2d_bwd",
    "batch_norm2d_relu_max_pool2d_fwd",
    "batch_norm2d_relu_max_pool2d_bwd",
    "conv2d_batch_norm2d_relu_max_pool2d_fwd",
    "conv2d_batch_norm2d_relu_max_pool2d_bwd",
    "cross_entropy_fwd",
}


def calls(dtype, big=False):
    """Every operator at least once; ``big`` is big enough to be split between threads.

    Beside a 16-bit ``dtype``, biases, statistics and what an optimizer keeps are float32.
    """
    draw = Random(0)

    def normal(*shape):
        return draw.normal(shape, dtype)

    def exact(*shape):
        return draw.normal(shape, wide(dtype))

    return [
        *conv_calls(normal, exact, big),
        *pool_calls(normal, big),
        *elementwise_calls(normal, big),
        *dense_calls(normal, exact, big),
        *batch_norm_calls(normal, exact, big),
        *loss_calls(normal, draw, big),
        *step_calls(normal, exact, big),
        *feature_calls(exact, big),
        *chain_calls(dtype, big),
    ]


def conv_calls(normal, exact, big):
    n, size = (5, 24) if big else (2, 5)
    kinds = {
        "": ((n, size, size, 16), (24, 3, 3, 16), {"padding": 1}),
        "one_image": ((1, 2 * size, size, 16), (24, 3, 3, 16), {"padding": 1}),
        "one_band": ((1, 18, 17, 32), (48, 3, 3, 32), {"padding": 1}),
        "first": ((n, 2 * size, size, 1), (16, 3, 3, 1), {"padding": 1}),
        "1x1": ((n, size, size, 16), (32, 1, 1, 16), {}),
        "1x1_few": ((1, 16, 16, 32), (40, 1, 1, 32), {}),
        "stride2": ((n, size + 1, size, 8), (17, 3, 3, 8), {"stride": 2, "padding": "same"}),
        "stride_2x1": ((n, size, size, 16), (48, 3, 3, 16), {"stride": (2, 1), "padding": 1}),
        "grouped": ((n, size, size, 16), (16, 3, 3, 4), {"padding": 1, "groups": 4}),
        "depthwise": ((n, size, size, 32), (32, 3, 3, 1), {"padding": 1, "groups": 32}),
        "dilated": ((n, size, size, 8), (8, 3, 3, 8), {"padding": 2, "dilation": 2}),
    }
    for note, (x_shape, w_shape, o) in kinds.items():
        x, w, b = normal(*x_shape), normal(*w_shape), exact(w_shape[0])
        dy = normal(*reference.conv2d_fwd(x, w, **o).shape)
        yield Call("conv2d_fwd", (x, w, b), o, note)
        yield Call("conv2d_dgrad", (dy, w, x_shape), o, note)
        yield Call("conv2d_wgrad", (dy, x, w_shape), o, note)
        if "groups" not in o and "dilation" not in o:
            _, argmax = reference.conv2d_relu_max_pool2d_fwd(x, w, b, **o)
            dy = normal(*argmax.shape)
            yield Call("conv2d_relu_max_pool2d_fwd", (x, w, b), o, note)
            yield Call("conv2d_relu_max_pool2d_bwd", (dy, argmax, x, w), o, note)
    yield Call("conv2d_bgrad", (normal(n, size, size, 19),))

    x, w, b = normal(n, size, size, 16), normal(16, 4, 4, 12), exact(12)
    o = {"stride": 2, "padding": 1}
    dy = normal(n, 2 * size, 2 * size, 12)
    yield Call("conv_transpose2d_fwd", (x, w, b), o)
    yield Call("conv_transpose2d_dgrad", (dy, w, x.shape), o)
    yield Call("conv_transpose2d_wgrad", (dy, x, w.shape), o)


def pool_calls(normal, big):
    n, size = (8, 48) if big else (2, 6)
    x = normal(n, size, size, 16)
    for note, kernel, o in [("", 2, {}), ("overlapping", 3, {"stride": 2, "padding": 1})]:
        y, argmax = reference.max_pool2d_fwd(x, kernel, **o)
        dy = normal(*y.shape)
        yield Call("max_pool2d_fwd", (x, kernel), o, note)
        yield Call("max_pool2d_bwd", (dy, argmax, x.shape, kernel), o, note)
        yield Call("avg_pool2d_fwd", (x, kernel), o, note)
        yield Call("avg_pool2d_bwd", (dy, x.shape, kernel), o, note)
    yield Call("global_avg_pool2d_fwd", (x,))
    yield Call("global_avg_pool2d_bwd", (normal(n, 16), x.shape))
    yield Call("upsample2d_fwd", (x, (2, 3)))
    yield Call("upsample2d_bwd", (x, (2, 3)))


def elementwise_calls(normal, big):
    shape = (257, 1031) if big else (3, 5)
    x, dy = normal(*shape), normal(*shape)
    o = {"seed": 11, "offset": 3}
    yield Call("relu_fwd", (x,), in_place=(0,))
    yield Call("relu_bwd", (dy, np.maximum(x, 0)), in_place=(0,))
    yield Call("dropout_fwd", (x, 0.3), o, in_place=(0,))
    yield Call("dropout_bwd", (dy, 0.3), o, in_place=(0,))
    y = reference.softmax_fwd(x).astype(x.dtype)
    yield Call("softmax_fwd", (x,), in_place=(0,))
    yield Call("softmax_bwd", (dy, y), in_place=(0,))


def dense_calls(normal, exact, big):
    n, c, k = (67, 1030, 259) if big else (3, 5, 7)
    x, w, b, dy = normal(n, c), normal(k, c), exact(k), normal(n, k)
    yield Call("linear_fwd", (x, w, b))
    yield Call("linear_fwd", (x[:1], w, b), note="one_row")
    yield Call("linear_dgrad", (dy, w))
    yield Call("linear_wgrad", (dy, x))
    yield Call("linear_bgrad", (dy,))


def batch_norm_calls(normal, exact, big):
    for c, kind in ((19, ""), (24, "-vectors")):
        shape = (9, 40, 40, c) if big else (2, 3, 4, c)
        x, dy, gamma, beta, mean = normal(*shape), normal(*shape), exact(c), exact(c), exact(c)
        var = exact(c) ** 2 + gamma.dtype.type(0.5)
        for training in (True, False):
            note = ("training" if training else "evaluation") + kind
            o = {"training": training}
            yield Call("batch_norm2d_fwd", (x, gamma, beta, mean, var), o, note)
            yield Call("batch_norm2d_bwd", (dy, x, gamma, mean, var), o, note)
            inputs = x, gamma, beta, mean, var
            yield from pooled_norm_calls(inputs, normal, o, note)
            yield from norm_conv_calls(inputs, normal, exact, o, note)
            yield from first_block_calls((gamma, beta, mean, var), normal, exact, o, note, big)


def pooled_norm_calls(inputs, normal, options, note):
    x, gamma, beta, mean, var = inputs
    for pool in (1, 2):
        o = {**options, "pool": pool}
        fresh = mean.copy(), var.copy()
        y, argmax, *_ = reference.batch_norm2d_relu_max_pool2d_fwd(x, gamma, beta, *fresh, **o)
        args = normal(*y.shape), argmax, x, gamma, mean, var
        name = f"{note}-pool" if pool > 1 else note
        yield Call("batch_norm2d_relu_max_pool2d_fwd", inputs, o, name)
        yield Call("batch_norm2d_relu_max_pool2d_bwd", args, o, name)
    y, *kept = reference.batch_norm2d_relu_global_avg_pool2d_fwd(
        x, gamma, beta, mean.copy(), var.copy(), **options
    )
    args = normal(*y.shape), x, gamma, *(a.astype(gamma.dtype) for a in kept)
    yield Call("batch_norm2d_relu_global_avg_pool2d_fwd", inputs, options, note)
    yield Call("batch_norm2d_relu_global_avg_pool2d_bwd", args, options, note)


def norm_conv_calls(inputs, normal, exact, options, note):
    """With a convolution that is 1x1, depthwise, and neither."""
    x, gamma, beta, mean, var = inputs
    c = x.shape[-1]
    windows = {
        "": ((16, 1, 1, c), {}),
        "-depthwise": ((c, 3, 3, 1), {"padding": 1, "groups": c}),
        "-3x3": ((16, 3, 3, c), {"padding": 1}),
    }
    for kind, (shape, window) in windows.items():
        w, b, o = normal(*shape), exact(shape[0]), {**options, **window}
        fresh = mean.copy(), var.copy()
        y, norm = reference.batch_norm2d_relu_conv2d_fwd(x, gamma, beta, *fresh, w, b, **o)
        args = normal(*y.shape), x, gamma, norm.astype(gamma.dtype), w
        yield Call("batch_norm2d_relu_conv2d_fwd", (*inputs, w, b), o, note + kind)
        yield Call("batch_norm2d_relu_conv2d_bwd", args, o, note + kind)


def first_block_calls(channels, normal, exact, options, note, big):
    K = len(channels[0])
    x, w, b = normal(*((9, 40, 41, 1) if big else (2, 6, 7, 1))), normal(K, 3, 3, 1), exact(K)
    gamma, _, mean, var = channels
    fresh = gamma, channels[1], mean.copy(), var.copy()
    y, argmax, *_ = reference.conv2d_batch_norm2d_relu_max_pool2d_fwd(x, w, b, *fresh, **options)
    args = normal(*y.shape), argmax, x, w, b, gamma, mean, var
    yield Call("conv2d_batch_norm2d_relu_max_pool2d_fwd", (x, w, b, *channels), options, note)
    yield Call("conv2d_batch_norm2d_relu_max_pool2d_bwd", args, options, note)


def loss_calls(normal, draw, big):
    n, classes = (4099, 37) if big else (6, 5)
    logits, y, t = normal(n, classes), normal(n, classes), normal(n, classes)
    ids = draw.integers(n, np.int64, low=0, high=classes - 1)
    probabilities = reference.softmax_fwd(t).astype(t.dtype)
    for note, target in [("ids", ids), ("probabilities", probabilities)]:
        yield Call("cross_entropy_fwd", (logits, target), {"label_smoothing": 0.1}, note)
        yield Call(
            "cross_entropy_bwd",
            lambda ops, target=target: (ops.cross_entropy_fwd(logits.copy(), target.copy())[1],),
            {"scale": 2.0},
            note,
        )
    yield Call("mse_fwd", (y, t))
    yield Call("mse_bwd", (y, t))


def step_calls(normal, exact, big):
    shapes = [(64, 3, 3, 32), (64,), (64, 4096), (1,)] if big else [(3, 4), (5,), (1,)]
    params, grads, m = ([f(*s) for s in shapes] for f in (exact, normal, exact))
    v = [exact(*s) ** 2 for s in shapes]
    o = {"lr": 0.1, "weight_decay": 0.01}
    yield Call("sgd_step", (params, grads, m), {**o, "momentum": 0.9, "nesterov": True})
    yield Call("adam_step", (params, grads, m, v, 3), {**o, "betas": (0.9, 0.999), "eps": 1e-8})


def feature_calls(exact, big):
    x = exact(3, 150_000 if big else 1200)
    for note, preset in {"": "librosa", "reflected": "torchaudio", "kaldi": "kaldi"}.items():
        features = LogMel(n_fft=420, n_mels=10, preset=preset)  # 210 = 2 * 3 * 5 * 7
        o = features.operator_settings(x.shape[1])
        yield Call("log_mel", (x, *features.operator_tables()), o, note)


@functools.cache  # drawing one takes longer than most calls do
def chain_calls(dtype, big):
    """Of blocks whose maps are made and read in one go, and of others; see csrc/cpu."""
    draw, shape = Random(1), (5, 40, 40, 32) if big else (2, 12, 12, 32)
    kinds = {
        "": [depthwise(32), dense(32, 48, 1), depthwise(48), dense(48, 32, 1, bias=True)],
        "-odd": [dense(32, 13, 1), depthwise(13, stride=2), dense(13, 7, bias=True)],
    }
    return [
        call
        for kind, blocks in kinds.items()
        for note in ("training", "evaluation")
        for call in calls_of_chain(draw, shape, blocks, dtype, note, note + kind)
    ]


def calls_of_chain(draw, shape, kinds, dtype, mode, note):
    x, blocks = chains.drawn(shape, kinds, draw, dtype, [mode == "training"])
    fresh = each(copied, blocks)
    kept = getattr(reference, chains.FWD)(x, fresh)
    norms = [norm.astype(blocks[0].gamma.dtype) for _, norm in kept]
    *between, y = (y.astype(dtype) for y, _ in kept)
    forward = [a for block in blocks for a in block[: chains.ARRAYS]]
    backward = [a for b, norm in zip(blocks, norms, strict=True) for a in (b.gamma, norm, b.w)]
    o = {"settings": [chains.settings_of(block) for block in blocks]}
    biased = [block.b is not None for block in blocks]
    yield Call(chains.FWD, (x, *forward), o, note)
    args = draw.normal(y.shape, dtype), x, *backward, *between
    yield Call(chains.BWD, args, {**o, "biased": biased}, note)
