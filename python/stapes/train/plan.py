"""How a compiled network computes: runs of layers in one kernel, buffers used again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any

import numpy as np

from stapes import ops
from stapes.device import Array, array_module
from stapes.nn.activation import ReLU, Softmax
from stapes.nn.chain import _Chain
from stapes.nn.conv import Conv2d
from stapes.nn.layer import Layer
from stapes.nn.linear import Linear
from stapes.nn.parameter import Parameter
from stapes.nn.pool import MaxPool2d
from stapes.ops._args import padding, pair

SHAPES_KEPT = 8
"""Input shapes whose buffers are kept: the batch, the last short one, other clip lengths."""

_LARGEST_WINDOW = 255
"""Places of a pooling window that the fused kernel's uint8 argmax can tell, beside "dead"."""


class Plan:
    """The stages of a network, and buffers for each input shape.

    A stage is a layer, or a run of layers with a kernel of its own: Conv2d + ReLU + MaxPool2d,
    Conv2d + ReLU, Linear + ReLU. Nested Sequentials are taken apart. Every operator writes into the
    array it returned the last time for this input shape, so results of `forward` hold only until
    the next one: what leaves the network must be copied.

    Parameters
    ----------
    model : Sequential
        Its layers as they are now.
    fuse : bool
        False: one stage for each layer.
    probabilities : bool
        Leave a final Softmax out: it is merged into the loss, or applied to the result.
    rounded : dtype, optional
        A 16-bit one, to compute in: inputs are rounded to it, outputs come back in float32, and
        weights have copies in it.
    """

    def __init__(
        self,
        model: _Chain,
        *,
        fuse: bool,
        probabilities: bool,
        rounded: np.dtype[Any] | None = None,
    ) -> None:
        layers = list(_flat(model))
        self.model = model
        self.layers = list(model._walk())
        if probabilities and layers and type(layers[-1]) is Softmax:
            layers.pop()
        self.stages = list(_fused(layers)) if fuse else layers
        self.rounded = rounded
        self._leaving: _Cast | None = None
        if rounded is not None and self.stages:
            self._leaving = _Cast(np.dtype(np.float32))
            self.stages = [_Cast(rounded), *self.stages, self._leaving]
        self._buffered = [layer for stage in self.stages for layer in (stage, *_inner(stage))]
        self._kept: OrderedDict[tuple[int, ...], list[dict[str, Any]]] = OrderedDict()

    def is_current(self) -> bool:
        """Tell whether the network still has the layers that were planned for."""
        now = list(self.model._walk())
        return len(now) == len(self.layers) and all(map(is_, now, self.layers))

    @contextmanager
    def buffers(self, input_shape: tuple[int, ...]) -> Iterator[list[dict[str, Any]]]:
        """Within the block, stages write into the buffers of this input shape (N included)."""
        if input_shape not in self._kept:
            self._kept[input_shape] = [{} for _ in self._buffered]
            if len(self._kept) > SHAPES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(input_shape)
        for layer, buffers in zip(self._buffered, self._kept[input_shape], strict=True):
            layer._plan_slots = buffers
        try:
            yield self._kept[input_shape]
        finally:
            for layer in self._buffered:
                layer._plan_slots = None

    def entering(self, x: Array) -> Array:
        """Return an input as the layers get it, for running them one by one."""
        return x if self.rounded is None else ops.cast(x, self.rounded)

    def refresh(self) -> None:
        """Bring the 16-bit copies of weights up to date, where others changed the weights."""
        if self.rounded is not None:
            for p in self.model.parameters():
                p.round_to(self.rounded)

    def scale_gradients(self, factor: Array | None) -> None:
        """Let `backward` multiply gradients, before they are rounded, by a float32 (1,) array."""
        if self._leaving is not None:
            self._leaving.factor = factor

    def forward(self, x: Array) -> Array:
        """Run all stages; shapes are checked, and open sizes inferred, once for each shape."""
        x = self.model._input(x)
        for stage in self.stages:
            x = stage.forward(x)
        return x

    def backward(self, dy: Array | None) -> None:
        """Leave every parameter's gradient; nothing is computed below the first of them."""
        trained = (i for i, stage in enumerate(self.stages) if stage.parameters())
        first = next(trained, len(self.stages))
        for i in reversed(range(len(self.stages))):
            if i < first:
                self.stages[i].release()
            else:
                dy = self.stages[i].backward(dy, need_dx=i > first)


class _Cast(Layer):
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


class _Fused(Layer):
    """A stage that stands for a layer with weights and those after it."""

    def __init__(self, layer: Conv2d | Linear) -> None:
        super().__init__()
        self.layer = layer

    def parameters(self) -> list[Parameter]:
        return self.layer.parameters()

    def release(self) -> None:
        self._saved = None
        self.layer.release()

    def _label(self) -> str:
        return self.layer._label()

    def _start(self, x: Array) -> Array:
        self.training = self.layer.training
        return self.layer._input(x)


class _Rectified(_Fused):
    """A layer with ReLU in the epilogue of its kernel."""

    def forward(self, x: Array) -> Array:
        x = self._start(x)
        y = self.layer._forward(x, activation="relu")
        self._keep(y)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        (y,) = self._kept()
        return self.layer.backward(self._run("dy", ops.relu_bwd, dy, y), need_dx)


class _RectifiedPooled(_Fused):
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


def _flat(chain: _Chain) -> Iterator[Layer]:
    """Yield the layers, those of nested Sequentials in their place."""
    for layer in chain.layers:
        if isinstance(layer, _Chain) and type(layer).forward is _Chain.forward:
            yield from _flat(layer)
        else:
            yield layer


def _inner(stage: Layer) -> list[Layer]:
    """Return the layers within a stage that is a container of its own kind, such as Residual."""
    if isinstance(stage, _Chain):
        return list(stage._walk())
    return [stage.layer] if isinstance(stage, _Fused) else []


def _fused(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield stages, each as long a run of layers as there is a kernel for."""
    i = 0
    while i < len(layers):
        run = layers[i : i + 3]
        rectified = len(run) > 1 and isinstance(run[0], Conv2d | Linear) and type(run[1]) is ReLU
        if rectified and len(run) == 3 and _pools_in_place(run[0], run[2]):
            yield _RectifiedPooled(run[0], run[2])  # type: ignore[arg-type]
            i += 3
        elif rectified:
            yield _Rectified(run[0])  # type: ignore[arg-type]
            i += 2
        else:
            yield run[0]
            i += 1


def _pools_in_place(conv: Layer, pool: Layer) -> bool:
    """Tell whether the fused kernel computes this convolution with this pool."""
    if type(conv) is not Conv2d or type(pool) is not MaxPool2d:
        return False
    kernel = pair("MaxPool2d", "kernel_size", pool.kernel_size)
    stride = kernel if pool.stride is None else pair("MaxPool2d", "stride", pool.stride)
    return (
        stride == kernel
        and kernel[0] * kernel[1] <= _LARGEST_WINDOW
        and padding("MaxPool2d", pool.padding) == (0, 0, 0, 0)
        and pair("Conv2d", "dilation", conv.dilation) == (1, 1)
        and conv.groups == 1
    )
