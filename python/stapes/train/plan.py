"""How a compiled network computes: runs of layers in one kernel, buffers used again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from operator import is_
from types import ModuleType
from typing import Any

import numpy as np

from stapes import ops
from stapes.device import Array, array_module, empty
from stapes.nn.activation import Softmax
from stapes.nn.chain import _Chain
from stapes.train.fusing import flat, fused
from stapes.train.norm_stages import Folded
from stapes.train.stages import Cast, inner

SHAPES_KEPT = 8
"""Input shapes whose buffers are kept: the batch, the last short one, other clip lengths."""


_Passed = tuple[dict[str, Any], tuple[int, ...], np.dtype[Any]]
"""A stage's slots, and the shape and dtype of the gradient that it passed on."""


class Buffers:
    """What stages write into, for one input shape.

    Activations have an array each, since the backward pass reads them. The gradient of a stage's
    input is read by the stage before it and by nobody after that, so two arrays serve them all in
    turn. How large these must be is known after the first backward pass, during which each gradient
    is let go as soon as it was read.

    Attributes
    ----------
    slots : list of dict
        Arrays of each layer by name; see `stapes.nn.Layer._run`.
    """

    def __init__(self, layers: int) -> None:
        self.slots: list[dict[str, Any]] = [{} for _ in range(layers)]
        self._shared = False

    def let_go(self, slots: dict[str, Any]) -> list[_Passed]:
        """Keep a stage's gradient no longer than its reader does, in the first backward pass."""
        dx = None if self._shared else slots.pop("dx", None)
        return [] if dx is None else [(slots, dx.shape, dx.dtype)]

    def share(self, passed: Sequence[_Passed], module: ModuleType) -> None:
        """Give the gradients that were let go, in that order, their memory for all later passes.

        Parameters
        ----------
        module : module
            numpy or cupy.
        """
        self._shared = True
        for turn in (passed[::2], passed[1::2]):
            sizes = [prod(shape) * dtype.itemsize for _, shape, dtype in turn]
            memory = empty(module, max(sizes, default=0), np.uint8)
            for (slots, shape, dtype), size in zip(turn, sizes, strict=True):
                slots["dx"] = memory[:size].view(dtype).reshape(shape)


class Plan:
    """The stages of a network, and buffers for each input shape.

    A stage is a layer, or a run of layers with a kernel of its own: Conv2d + ReLU + MaxPool2d,
    Conv2d + ReLU, Linear + ReLU, BatchNorm2d + ReLU, alone or with MaxPool2d or Conv2d behind them,
    and on the CPU as many BatchNorm2d + ReLU + Conv2d as follow each other.
    Nested Sequentials are taken apart. Every operator writes into the array it returned the last
    time for this input shape, so results of `forward` hold only until the next one: what leaves the
    network must be copied.

    Parameters
    ----------
    model : Sequential
        Its layers as they are now.
    fuse : bool
        False: one stage for each layer.
    probabilities : bool
        Leave a final Softmax out: it is merged into the loss, or applied to the result.
    inference : bool
        For `forward` with running values alone: BatchNorm2d is folded into the Conv2d before it.
    on_cpu : bool
        Join also what is faster that way on the CPU alone.
    rounded : dtype, optional
        A 16-bit one, to compute in: inputs are rounded to it, outputs come back in float32, and
        weights have copies in it.

    Attributes
    ----------
    stages : list of Layer
    buffered : list of Layer
        The stages, and the layers within them.
    """

    def __init__(
        self,
        model: _Chain,
        *,
        fuse: bool,
        probabilities: bool,
        inference: bool = False,
        on_cpu: bool = False,
        rounded: np.dtype[Any] | None = None,
    ) -> None:
        layers = list(flat(model))
        self.model, self.fuse = model, fuse
        self.layers = list(model._walk())
        if probabilities and layers and type(layers[-1]) is Softmax:
            layers.pop()
        self.stages = layers
        if fuse:
            self.stages = list(fused(layers, inference=inference, on_cpu=on_cpu))
        self.rounded = rounded
        self._leaving: Cast | None = None
        if rounded is not None and self.stages:
            self._leaving = Cast(np.dtype(np.float32))
            self.stages = [Cast(rounded), *self.stages, self._leaving]
        self.buffered = [layer for stage in self.stages for layer in (stage, *inner(stage))]
        self._kept: OrderedDict[tuple[int, ...], Buffers] = OrderedDict()
        self._current: Buffers | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the buffers behind: a copy makes its own."""
        return {**vars(self), "_kept": OrderedDict(), "_current": None}

    def is_current(self) -> bool:
        """Tell whether the network still has the layers that were planned for."""
        now = list(self.model._walk())
        return len(now) == len(self.layers) and all(map(is_, now, self.layers))

    @contextmanager
    def buffers(self, input_shape: tuple[int, ...]) -> Iterator[Buffers]:
        """Within the block, stages write into the buffers of this input shape (N included)."""
        if input_shape not in self._kept:
            self._kept[input_shape] = Buffers(len(self.buffered))
            if len(self._kept) > SHAPES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(input_shape)
        self._current = self._kept[input_shape]
        for layer, slots in zip(self.buffered, self._current.slots, strict=True):
            layer._plan_slots = slots
        try:
            yield self._current
        finally:
            self._current = None
            for layer in self.buffered:
                layer._plan_slots = None

    def entering(self, x: Array) -> Array:
        """Return an input as the layers get it, for running them one by one."""
        return x if self.rounded is None else ops.cast(x, self.rounded)

    def refresh(self) -> None:
        """Bring the 16-bit copies of weights up to date, where others changed the weights."""
        if self.rounded is not None:
            for p in self.model.parameters():
                p.round_to(self.rounded)

    def refold(self) -> None:
        """Fold BatchNorm2d anew: weights and running values may have changed."""
        for stage in self.stages:
            if isinstance(stage, Folded) and stage.layer._built and stage.norm._built:
                stage.fold()

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
        module = np if dy is None else array_module(dy)
        passed: list[_Passed] = []
        trained = (i for i, stage in enumerate(self.stages) if stage.parameters())
        first = next(trained, len(self.stages))
        for i in reversed(range(len(self.stages))):
            if i < first:
                self.stages[i].release()
            else:
                dy = self.stages[i].backward(dy, need_dx=i > first)
                slots = self.stages[i]._plan_slots
                if self._current is not None and slots is not None:
                    passed += self._current.let_go(slots)
        if self._current is not None and passed:
            self._current.share(passed, module)
