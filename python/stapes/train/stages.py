"""The stages of a plan: layers, and runs of layers with a kernel or an array in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stapes import ops
from stapes.device import Array, array_module
from stapes.nn.activation import ReLU
from stapes.nn.chain import _Chain
from stapes.nn.conv import Conv2d
from stapes.nn.layer import Layer
from stapes.nn.linear import Linear
from stapes.nn.norm import BatchNorm2d
from stapes.nn.parameter import Parameter
from stapes.nn.pool import MaxPool2d
from stapes.ops._args import padding, pair

_LARGEST_WINDOW = 255
"""Places of a pooling window that the fused kernel's uint8 argmax can tell, beside "dead"."""


class Cast(Layer):
    """The way into a 16-bit network, or out of it."""

    def __init__(self, target: np.dtype[Any]) -> None:
        super().__init__()
        self.target = target
        self.factor: Array | None = None

    def forward(self, x: Array) -> Array:
        self._keep(x.dtype)
        return self._run("y", ops.cast, x, self.target)

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        (dtype,) = self._kept()
        if self.factor is not None:
            dy = self._run("scaled", array_module(dy).multiply, dy, self.factor)
        return self._run("dx", ops.cast, dy, dtype) if need_dx else None


class Fused(Layer):
    """A stage that stands for a layer with weights and those after it.

    Attributes
    ----------
    layer : Layer
        The first one.
    layers : list of Layer
        Those with weights.
    """

    def __init__(self, layer: Conv2d | Linear | BatchNorm2d, *others: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.layers: list[Layer] = [layer, *others]

    def parameters(self) -> list[Parameter]:
        return [p for layer in self.layers for p in layer.parameters()]

    def release(self) -> None:
        self._saved = None
        for layer in self.layers:
            layer.release()

    def _label(self) -> str:
        return self.layer._label()

    def _start(self, x: Array) -> Array:
        self.training = self.layer.training
        return self.layer._input(x)


class Rectified(Fused):
    """A layer with ReLU in the epilogue of its kernel."""

    layer: Conv2d | Linear

    def forward(self, x: Array) -> Array:
        x = self._start(x)
        y = self.layer._forward(x, activation="relu")
        self._keep(y)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        (y,) = self._kept()
        return self.layer.backward(self._run("dy", ops.relu_bwd, dy, y), need_dx)


class RectifiedPooled(Fused):
    """Conv2d + ReLU + MaxPool2d: the map before the pool is never written, nor its gradient."""

    layer: Conv2d

    def __init__(self, layer: Conv2d, pool: MaxPool2d) -> None:
        super().__init__(layer)
        self.window = {
            "pool": pool.kernel_size,
            "stride": layer.stride,
            "padding": layer.padding,
        }

    def _window(self) -> dict[str, Any]:
        return {**self.window, "precision": self.layer._precision}

    def forward(self, x: Array) -> Array:
        x = self._start(x)
        conv = self.layer
        y, argmax = self._run(
            "y",
            ops.conv2d_relu_max_pool2d_fwd,
            x,
            conv.weight.like(x),
            conv._bias_data(),
            **self._window(),
        )
        self._keep(x, argmax)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        x, argmax = self._kept()
        w, b = self.layer.weight, self.layer.bias
        dx = self._slot("dx") if need_dx else None
        db = None if b is None else b.gradient()
        dx, _, _ = ops.conv2d_relu_max_pool2d_bwd(
            dy,
            argmax,
            x,
            w.like(x),
            **self._window(),
            need_dx=need_dx,
            out=(dx, w.gradient(), db),
        )
        return self._put("dx", dx)


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
            norm.weight._data,
            norm.bias._data,
            norm.running_mean,
            norm.running_var,
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


class NormalisedConv(Fused):
    """BatchNorm2d + ReLU + Conv2d: the map before the convolution is made anew in the backward."""

    layer: BatchNorm2d

    def __init__(self, layer: BatchNorm2d, conv: Conv2d) -> None:
        super().__init__(layer, conv)
        self.conv = conv

    def forward(self, x: Array) -> Array:
        x = self._start(x)
        norm, conv = self.layer, self.conv
        y, kept = self._run(
            "y",
            ops.batch_norm2d_relu_conv2d_fwd,
            x,
            norm.weight._data,
            norm.bias._data,
            norm.running_mean,
            norm.running_var,
            conv.weight.like(x),
            conv._bias_data(),
            training=self.training,
            momentum=norm.momentum,
            eps=norm.eps,
            **conv._window(),
        )
        self._keep(x, kept)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        x, kept = self._kept()
        norm, w, b = self.layer, self.conv.weight, self.conv.bias
        db = None if b is None else b.gradient()
        gradients = norm.weight.gradient(), norm.bias.gradient(), w.gradient(), db
        dx, *_ = ops.batch_norm2d_relu_conv2d_bwd(
            dy,
            x,
            norm.weight._data,
            kept,
            w.like(x),
            **self.conv._window(),
            need_db=b is not None,
            out=(self._slot("dx"), *gradients),
        )
        return self._put("dx", dx) if need_dx else None


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


def flat(chain: _Chain) -> Iterator[Layer]:
    """Yield the layers, those of nested Sequentials in their place."""
    for layer in chain.layers:
        if isinstance(layer, _Chain) and type(layer).forward is _Chain.forward:
            yield from flat(layer)
        else:
            yield layer


def inner(stage: Layer) -> list[Layer]:
    """Return the layers within a stage that is a container of its own kind, such as Residual."""
    if isinstance(stage, _Chain):
        return list(stage._walk())
    return stage.layers if isinstance(stage, Fused) else []


def fused(layers: Sequence[Layer], *, inference: bool = False) -> Iterator[Layer]:
    """Yield stages, each as long a run of layers as there is a kernel for."""
    i = 0
    while i < len(layers):
        if inference and (folded := _folded(layers[i : i + 4])) is not None:
            stage, count = folded
            yield stage
            i += count
            continue
        run = layers[i : i + 3]
        rectified = len(run) > 1 and isinstance(run[0], Conv2d | Linear) and type(run[1]) is ReLU
        normalised = len(run) > 1 and type(run[0]) is BatchNorm2d and type(run[1]) is ReLU
        if rectified and len(run) == 3 and _pools_in_place(run[0], run[2]):
            yield RectifiedPooled(run[0], run[2])  # type: ignore[arg-type]
            i += 3
        elif rectified:
            yield Rectified(run[0])  # type: ignore[arg-type]
            i += 2
        elif normalised and len(run) == 3 and _pools_apart(run[2]):
            yield Normalised(run[0], run[2])  # type: ignore[arg-type]
            i += 3
        elif normalised and len(run) == 3 and _convolves(layers[i + 2 : i + 4]):
            yield NormalisedConv(run[0], run[2])  # type: ignore[arg-type]
            i += 3
        elif normalised:
            yield Normalised(run[0])  # type: ignore[arg-type]
            i += 2
        else:
            yield run[0]
            i += 1


def _folded(run: Sequence[Layer]) -> tuple[Folded, int] | None:
    """Return a stage for as many of these layers as it can do, from a Conv2d and BatchNorm2d on."""
    if len(run) < 2 or type(run[0]) is not Conv2d or type(run[1]) is not BatchNorm2d:
        return None
    conv, norm = run[0], run[1]
    if len(run) == 2 or type(run[2]) is not ReLU:
        return Folded(conv, norm, rectified=False), 2
    if len(run) == 4 and _pools_in_place(conv, run[3]):
        return Folded(conv, norm, rectified=True, pool=run[3]), 4  # type: ignore[arg-type]
    return Folded(conv, norm, rectified=True), 3


def _convolves(run: Sequence[Layer]) -> bool:
    """Tell whether this begins with a convolution that no kernel joins with a ReLU behind it."""
    return type(run[0]) is Conv2d and (len(run) == 1 or type(run[1]) is not ReLU)


def _pools_in_place(conv: Layer, pool: Layer) -> bool:
    """Tell whether the fused kernel computes this convolution with this pool."""
    return (
        type(conv) is Conv2d
        and pair("Conv2d", "dilation", conv.dilation) == (1, 1)
        and conv.groups == 1
        and _pools_apart(pool)
    )


def _pools_apart(pool: Layer) -> bool:
    """Tell whether this is a max pool of windows side by side, as fused kernels compute it."""
    if type(pool) is not MaxPool2d:
        return False
    kernel = pair("MaxPool2d", "kernel_size", pool.kernel_size)
    stride = kernel if pool.stride is None else pair("MaxPool2d", "stride", pool.stride)
    return (
        stride == kernel
        and kernel[0] * kernel[1] <= _LARGEST_WINDOW
        and padding("MaxPool2d", pool.padding) == (0, 0, 0, 0)
    )
