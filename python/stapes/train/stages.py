"""The stages of a plan that stand for a run of layers with a kernel in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from stapes import ops
from stapes.device import Array, array_module
from stapes.nn.chain import _Chain
from stapes.nn.conv import Conv2d
from stapes.nn.layer import Layer
from stapes.nn.linear import Linear
from stapes.nn.norm import BatchNorm2d
from stapes.nn.parameter import Parameter
from stapes.nn.pool import MaxPool2d


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


def inner(stage: Layer) -> list[Layer]:
    """Return the layers within a stage that is a container of its own kind, such as Residual."""
    if isinstance(stage, _Chain):
        return list(stage._walk())
    return stage.layers if isinstance(stage, Fused) else []
