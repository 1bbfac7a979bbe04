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
    parts : list of Layer
        All that may be run instead of the stage as a whole.
    """

    def __init__(self, layer: Conv2d | Linear | BatchNorm2d, *others: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.layers: list[Layer] = [layer, *others]
        self.parts = self.layers

    def parameters(self) -> list[Parameter]:
        return [p for layer in self.layers for p in layer.parameters()]

    def release(self) -> None:
        self._saved = None
        for layer in self.parts:
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


def inner(stage: Layer) -> list[Layer]:
    """Return the layers within a stage that is a container of its own kind, such as Residual."""
    if isinstance(stage, _Chain):
        return list(stage._walk())
    return stage.parts if isinstance(stage, Fused) else []
