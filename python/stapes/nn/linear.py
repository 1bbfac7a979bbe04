"""Dense layers, and the step from maps to vectors."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from stapes import ops
from stapes.device import Array
from stapes.nn._args import flag, optional_size, size
from stapes.nn.layer import Layer, Shape
from stapes.nn.parameter import Parameter


class _Weighted(Layer):
    """A layer with ``weight`` and, where it was asked for, ``bias``."""

    _use_bias = True
    _precision = "fp32"  # how float32 numbers are multiplied on CUDA: see stapes.ops.conv

    def to(self, device: str) -> Self:
        self._precision = "fp32"
        return super().to(device)

    @property
    def weight(self) -> Parameter:
        """The weights; RuntimeError while a size is not known."""
        self._materialise()
        return self._parameters["weight"]

    @property
    def bias(self) -> Parameter | None:
        """The bias, or None; RuntimeError while a size is not known."""
        self._materialise()
        return self._parameters.get("bias")

    def _bias_data(self) -> Array | None:
        return self._parameters["bias"]._data if self._use_bias else None

    def _argument(self, name: str) -> Any:
        return self._use_bias if name == "bias" else super()._argument(name)

    def _draw(self, shape: Shape, fan_in: int, outputs: int) -> None:
        """He uniform weights, zero bias."""
        self._add_parameter("weight", self._he_uniform(shape, fan_in))
        if self._use_bias:
            self._add_parameter("bias", np.zeros(outputs))


class Linear(_Weighted):
    """``y = x w^T + b`` over (N, in_features); weights (out_features, in_features).

    Parameters
    ----------
    in_features : int or None
        None: taken from the first input or from `build`.
    out_features : int
    bias : bool
    seed : int, optional
        See `Layer`. Weights are He uniform, the bias is zero.
    """

    def __init__(
        self,
        in_features: int | None,
        out_features: int,
        bias: bool = True,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        self.in_features = optional_size("Linear", "in_features", in_features)
        self.out_features = size("Linear", "out_features", out_features)
        self._use_bias = flag("Linear", "bias", bias)

    def _infer(self, input_shape: Shape) -> None:
        if self.in_features is None and len(input_shape) == 1:
            self.in_features = input_shape[0]

    def _init_weights(self) -> None:
        n = self._known("in_features", self.in_features)
        self._draw((self.out_features, n), n, self.out_features)

    def output_shape(self, input_shape: Shape) -> Shape:
        hint = "; put Flatten() or a global pool before it" if len(input_shape) > 1 else ""
        ok = len(input_shape) == 1 and self.in_features in (None, input_shape[0])
        self._expect(ok, f"({self.in_features or 'in_features'},)", input_shape, hint)
        return (self.out_features,)

    def flops(self, input_shape: Shape) -> int:
        return 2 * input_shape[0] * self.out_features

    def forward(self, x: Array) -> Array:
        return self._forward(x)

    def _forward(self, x: Array, activation: str | None = None) -> Array:
        """As `forward`; ``activation="relu"`` is computed in the same pass."""
        x = self._input(x)
        w, b = self.weight.like(x), self._bias_data()
        precision = self._precision
        y = self._run("y", ops.linear_fwd, x, w, b, activation=activation, precision=precision)
        self._keep(x)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        (x,) = self._kept()
        w, precision = self.weight, self._precision
        ops.linear_wgrad(dy, x, precision=precision, out=w.gradient())
        if self.bias is not None:
            ops.linear_bgrad(dy, out=self.bias.gradient())
        if not need_dx:
            return None
        return self._run("dx", ops.linear_dgrad, dy, w.like(dy), precision=precision)


class Flatten(Layer):
    """(N, H, W, C) to (N, H * W * C), in H, W, C order.

    torch flattens C, H, W: see `stapes.nn.convert.flatten_columns` for the dense layer after it.
    """

    def __init__(self) -> None:
        super().__init__()

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, x: Array) -> Array:
        x = self._input(x)
        self._keep(x.shape)
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        (shape,) = self._kept()
        return dy.reshape(shape) if need_dx else None
