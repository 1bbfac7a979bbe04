"""Batch normalisation."""

from __future__ import annotations

import numpy as np

from stapes import ops
from stapes.device import Array, to_device
from stapes.nn._args import number, optional_size
from stapes.nn.layer import Layer, Shape
from stapes.nn.parameter import Parameter


class BatchNorm2d(Layer):
    """Normalise each channel of (N, H, W, C) over N, H and W; weight and bias (C,).

    In training by the batch's mean and biased variance, and the running values follow by
    ``momentum`` (with the unbiased variance); in `eval` by the running values. As PyTorch; Ioffe
    and Szegedy, 2015.

    Parameters
    ----------
    num_features : int or None
        C; None: taken from the first input or from `build`.
    eps : float
        Added to the variance.
    momentum : float
        Weight of the new batch in the running values, in [0, 1].
    """

    def __init__(self, num_features: int | None, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features = optional_size("BatchNorm2d", "num_features", num_features)
        self.eps = number("BatchNorm2d", "eps", eps)
        self.momentum = number("BatchNorm2d", "momentum", momentum)
        if not self.eps > 0 or not 0 <= self.momentum <= 1:
            raise ValueError(
                "BatchNorm2d: eps must be above 0 and momentum in [0, 1], got"
                f" eps={self.eps}, momentum={self.momentum}"
            )

    def _infer(self, input_shape: Shape) -> None:
        if self.num_features is None and len(input_shape) == 3:
            self.num_features = input_shape[-1]

    def _init_weights(self) -> None:
        C = self._known("num_features", self.num_features)
        self._add_parameter("weight", np.ones(C))
        self._add_parameter("bias", np.zeros(C))
        for name, value in (("running_mean", 0), ("running_var", 1)):
            self._buffers[name] = to_device(np.full(C, value, self.dtype), self.device)

    @property
    def weight(self) -> Parameter:
        """The scale, gamma."""
        self._materialise()
        return self._parameters["weight"]

    @property
    def bias(self) -> Parameter:
        """The shift, beta."""
        self._materialise()
        return self._parameters["bias"]

    @property
    def running_mean(self) -> Array:
        """The running mean (C,)."""
        return self._buffer("running_mean")

    @property
    def running_var(self) -> Array:
        """The running unbiased variance (C,)."""
        return self._buffer("running_var")

    def _buffer(self, name: str) -> Array:
        """Return a running value, in the dtype of the weights (which may have been assigned)."""
        dtype = self.weight.dtype
        if self._buffers[name].dtype != dtype:
            self._buffers[name] = self._buffers[name].astype(dtype)
        return self._buffers[name]

    def output_shape(self, input_shape: Shape) -> Shape:
        ok = len(input_shape) == 3 and self.num_features in (None, input_shape[-1])
        self._expect(ok, f"(H, W, {self.num_features or 'C'})", input_shape)
        return input_shape

    def forward(self, x: Array) -> Array:
        x = self._input(x)
        y, mean, rstd = self._run(
            "y",
            ops.batch_norm2d_fwd,
            x,
            self.weight._data,
            self.bias._data,
            self.running_mean,
            self.running_var,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )
        self._keep(x, mean, rstd)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        x, mean, rstd = self._kept()
        out = (self._slot("dx"), self.weight.gradient(), self.bias.gradient())
        dx, _, _ = ops.batch_norm2d_bwd(dy, x, self.weight._data, mean, rstd, out=out)
        return self._put("dx", dx) if need_dx else None
