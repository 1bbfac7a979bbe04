"""The stages of a plan in which batch normalisation is one kernel with what is around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from stapes import ops
from stapes.device import Array, array_module
from stapes.nn.conv import Conv2d
from stapes.nn.norm import BatchNorm2d
from stapes.nn.pool import MaxPool2d
from stapes.ops._args import pair
from stapes.train.stages import Fused


def _channels(norm: BatchNorm2d) -> tuple[Array, Array, Array, Array]:
    """Return what operators take of a layer for each channel; the running values they change."""
    return norm.weight._data, norm.bias._data, norm.running_mean, norm.running_var


class Normalised(Fused):
    """BatchNorm2d + ReLU, and MaxPool2d: the map between is never written, nor its gradient."""

    layer: BatchNorm2d

    def __init__(self, layer: BatchNorm2d, pool: MaxPool2d | None = None) -> None:
        super().__init__(layer)
        self.pool = 1 if pool is None else pool.kernel_size

    def forward(self, x: Array) -> Array:
        x = self._start(x)
        norm = self.layer
        y, *kept = self._run(
            "y",
            ops.batch_norm2d_relu_max_pool2d_fwd,
            x,
            *_channels(norm),
            training=self.training,
            pool=self.pool,
            momentum=norm.momentum,
            eps=norm.eps,
        )
        self._keep(x, *kept)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        x, argmax, mean, rstd = self._kept()
        weight, bias = self.layer.weight, self.layer.bias
        out = (self._slot("dx"), weight.gradient(), bias.gradient())
        dx, _, _ = ops.batch_norm2d_relu_max_pool2d_bwd(
            dy, argmax, x, weight._data, mean, rstd, pool=self.pool, out=out
        )
        return self._put("dx", dx) if need_dx else None


class NormalisedMean(Fused):
    """BatchNorm2d + ReLU + GlobalAvgPool2d: the map between is never written."""

    layer: BatchNorm2d

    def forward(self, x: Array) -> Array:
        x = self._start(x)
        norm = self.layer
        y, *kept = self._run(
            "y",
            ops.batch_norm2d_relu_global_avg_pool2d_fwd,
            x,
            *_channels(norm),
            training=self.training,
            momentum=norm.momentum,
            eps=norm.eps,
        )
        self._keep(x, *kept)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        x, *kept = self._kept()
        weight, bias = self.layer.weight, self.layer.bias
        out = (self._slot("dx"), weight.gradient(), bias.gradient())
        dx, _, _ = ops.batch_norm2d_relu_global_avg_pool2d_bwd(dy, x, weight._data, *kept, out=out)
        return self._put("dx", dx) if need_dx else None


class NormalisedConvs(Fused):
    """BatchNorm2d + ReLU + Conv2d, once or several times.

    The maps before the convolutions are made anew in the backward.
    """

    layer: BatchNorm2d

    def __init__(self, *blocks: tuple[BatchNorm2d, Conv2d]) -> None:
        super().__init__(*(layer for block in blocks for layer in block))
        self.blocks = list(blocks)

    def forward(self, x: Array) -> Array:
        x = self._start(x)
        kept = self._run(
            "y",
            ops.batch_norm2d_relu_conv2d_chain_fwd,
            x,
            self._operands(x),
            precision=self._precision(),
        )
        self._keep(x, kept)
        return kept[-1][0]

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        x, kept = self._kept()
        gradients = []
        for norm, conv in self.blocks:
            db = None if conv.bias is None else conv.bias.gradient()
            gradients.append(
                (norm.weight.gradient(), norm.bias.gradient(), conv.weight.gradient(), db)
            )
        dx, _ = ops.batch_norm2d_relu_conv2d_chain_bwd(
            dy,
            x,
            self._operands(x),
            kept,
            precision=self._precision(),
            out=(self._slot("dx"), gradients),
        )
        return self._put("dx", dx) if need_dx else None

    def _precision(self) -> str:
        return self.blocks[0][1]._precision

    def _operands(self, x: Array) -> list[ops.NormConv]:
        return [
            ops.NormConv(
                *_channels(norm),
                conv.weight.like(x),
                conv._bias_data(),
                norm.training,
                norm.momentum,
                norm.eps,
                conv.stride,
                conv.padding,
                conv.dilation,
                conv.groups,
            )
            for norm, conv in self.blocks
        ]


class FirstBlock(Fused):
    """Conv2d + BatchNorm2d + ReLU + MaxPool2d on a network's input: there is no gradient of that.

    Where its kernels are the faster ones the convolution's output is never written; else the two
    parts run.
    """

    layer: Conv2d

    def __init__(self, layer: Conv2d, norm: BatchNorm2d, pool: MaxPool2d) -> None:
        super().__init__(layer, norm)
        self.norm, self.apart = norm, Normalised(norm, pool)
        self.parts = [*self.layers, self.apart]

    def pays(self, channels: int) -> bool:
        """Tell whether the joint kernels are the faster ones; see csrc/cpu/choice.hpp."""
        conv = self.layer
        sizes = conv.kernel_size, conv.stride, self.apart.pool
        names = "kernel_size", "stride", "pool"
        given = [pair("Conv2d", *named) for named in zip(names, sizes, strict=True)]
        few = channels <= 3 and 16 * channels <= conv.out_channels
        return few and given == [(3, 3), (1, 1), (2, 2)]

    def _window(self) -> dict[str, Any]:
        conv = self.layer
        return {
            "pool": self.apart.pool,
            "stride": conv.stride,
            "padding": conv.padding,
            "precision": conv._precision,
        }

    def forward(self, x: Array) -> Array:
        x = self._start(x)
        if x.dtype != np.float32 or not self.pays(x.shape[-1]):
            return self.apart.forward(self.layer.forward(x))
        conv, norm = self.layer, self.norm
        y, *kept = self._run(
            "y",
            ops.conv2d_batch_norm2d_relu_max_pool2d_fwd,
            x,
            conv.weight.like(x),
            conv._bias_data(),
            *_channels(norm),
            training=self.training,
            momentum=norm.momentum,
            eps=norm.eps,
            **self._window(),
        )
        self._keep(x, *kept)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        if self._saved is None:
            du = self.apart.backward(dy)
            assert du is not None, "a gradient was asked for"
            return self.layer.backward(du, need_dx)
        assert not need_dx, "the network's input has no gradient"
        x, argmax, mean, rstd = self._kept()
        conv, norm = self.layer, self.norm
        db = None if conv.bias is None else conv.bias.gradient()
        ops.conv2d_batch_norm2d_relu_max_pool2d_bwd(
            dy,
            argmax,
            x,
            conv.weight.like(x),
            conv._bias_data(),
            norm.weight._data,
            mean,
            rstd,
            **self._window(),
            out=(conv.weight.gradient(), norm.weight.gradient(), norm.bias.gradient(), db),
        )
        return None


class Folded(Fused):
    """Conv2d + BatchNorm2d with its running values, and ReLU and MaxPool2d behind them, to infer.

    ``gamma * rstd * (conv(x) - mean) + beta`` is a convolution with other weights.
    """

    layer: Conv2d

    def __init__(
        self, layer: Conv2d, norm: BatchNorm2d, *, rectified: bool, pool: MaxPool2d | None = None
    ) -> None:
        super().__init__(layer)
        self.norm, self.rectified, self.pool = norm, rectified, pool
        self._folded: tuple[Array, Array] | None = None

    def forward(self, x: Array) -> Array:
        x = self._start(x)
        w, b = self.fold() if self._folded is None else self._folded
        if self.pool is not None:
            window = {
                "stride": self.layer.stride,
                "padding": self.layer.padding,
                "pool": self.pool.kernel_size,
                "precision": self.layer._precision,
            }
            y, _ = self._run("y", ops.conv2d_relu_max_pool2d_fwd, x, w, b, **window)
            return y
        activation = "relu" if self.rectified else None
        window = self.layer._window()
        return self._run("y", ops.conv2d_fwd, x, w, b, **window, activation=activation)

    def fold(self) -> tuple[Array, Array]:
        """Compute the weights and bias anew, in the same arrays if these still fit."""
        norm, w, b = self.norm, self.layer.weight._data, self.layer._bias_data()
        module = array_module(w)
        scale = norm.weight._data / module.sqrt(norm.running_var + norm.eps)
        mean = norm.running_mean if b is None else norm.running_mean - b
        folded = self._folded
        if folded is None or type(folded[0]) is not type(w) or folded[0].dtype != w.dtype:
            folded = self._folded = module.empty_like(w), module.empty(w.shape[:1], w.dtype)
        module.multiply(w, scale[:, None, None, None], out=folded[0])
        module.subtract(norm.bias._data, mean * scale, out=folded[1])
        return folded
