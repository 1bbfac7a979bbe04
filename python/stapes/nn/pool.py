"""Layers that change the size of maps without weights: pooling and upsampling."""

from __future__ import annotations

from typing import Any

from stapes import _core, ops
from stapes.device import Array, array_module
from stapes.nn._args import flag, padding_like, size_pair
from stapes.nn.layer import Layer, Shape
from stapes.ops._args import IntPair, PaddingLike, padding, pair


class _Pool2d(Layer):
    """What the windowed pools share."""

    def __init__(
        self, kernel_size: IntPair, stride: IntPair | None = None, padding: PaddingLike = 0
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = size_pair(name, "kernel_size", kernel_size)
        self.stride = None if stride is None else size_pair(name, "stride", stride)
        self.padding = padding_like(name, padding)

    def output_shape(self, input_shape: Shape) -> Shape:
        self._expect(len(input_shape) == 3, "(H, W, C)", input_shape)
        name = type(self).__name__
        kernel = pair(name, "kernel_size", self.kernel_size)
        stride = kernel if self.stride is None else pair(name, "stride", self.stride)
        amounts = padding(name, self.padding)
        return self._sized(_core.pool2d_shape, input_shape, kernel, stride, amounts)

    def _window(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding}


class MaxPool2d(_Pool2d):
    """Largest value of each window of (N, H, W, C); the first one where several are equal.

    Parameters
    ----------
    kernel_size : int or (h, w)
    stride : int or (h, w), optional
        ``kernel_size`` by default.
    padding : int, (h, w), ((top, bottom), (left, right)), "same" or "valid"
        At most half the kernel; never chosen.
    """

    def forward(self, x: Array) -> Array:
        x = self._input(x)
        y, argmax = self._run("y", ops.max_pool2d_fwd, x, self.kernel_size, **self._window())
        self._keep(argmax, x.shape)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        argmax, shape = self._kept()
        if not need_dx:
            return None
        kernel = self.kernel_size
        return self._run("dx", ops.max_pool2d_bwd, dy, argmax, shape, kernel, **self._window())


class AvgPool2d(_Pool2d):
    """Mean of each window of (N, H, W, C).

    Parameters
    ----------
    kernel_size : int or (h, w)
    stride : int or (h, w), optional
        ``kernel_size`` by default.
    padding : int, (h, w), ((top, bottom), (left, right)), "same" or "valid"
    count_include_pad : bool
        Whether padded zeros count in the mean.
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: PaddingLike = 0,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.count_include_pad = flag("AvgPool2d", "count_include_pad", count_include_pad)

    def _window(self) -> dict[str, Any]:
        return {**super()._window(), "count_include_pad": self.count_include_pad}

    def forward(self, x: Array) -> Array:
        x = self._input(x)
        y = self._run("y", ops.avg_pool2d_fwd, x, self.kernel_size, **self._window())
        self._keep(x.shape)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        (shape,) = self._kept()
        if not need_dx:
            return None
        return self._run("dx", ops.avg_pool2d_bwd, dy, shape, self.kernel_size, **self._window())


class GlobalAvgPool2d(Layer):
    """Mean over H and W: (N, H, W, C) to (N, C)."""

    def __init__(self) -> None:
        super().__init__()

    def output_shape(self, input_shape: Shape) -> Shape:
        self._expect(len(input_shape) == 3, "(H, W, C)", input_shape)
        return input_shape[-1:]

    def forward(self, x: Array) -> Array:
        x = self._input(x)
        y = self._run("y", ops.global_avg_pool2d_fwd, x)
        self._keep(x.shape)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        (shape,) = self._kept()
        return self._run("dx", ops.global_avg_pool2d_bwd, dy, shape) if need_dx else None


def _contiguous(x: Array, *, out: Array | None = None) -> Array:
    """Return a C-contiguous copy."""
    module = array_module(x)
    out = module.empty(x.shape, x.dtype) if out is None else out
    module.copyto(out, x)
    return out


class TimePool(Layer):
    """Pool all of H (time) and keep W (frequency): (N, H, W, C) to (N, 1, W, C), or 2C channels.

    For heads that keep the frequency axis and take clips of any length.

    Parameters
    ----------
    mode : {"mean", "max", "mean_max"}
        "mean_max" gives both, the means in the first C channels.
    """

    def __init__(self, mode: str = "mean") -> None:
        super().__init__()
        if mode not in ("mean", "max", "mean_max"):
            raise ValueError(f'TimePool: mode must be "mean", "max" or "mean_max", got {mode!r}')
        self.mode = mode

    def output_shape(self, input_shape: Shape) -> Shape:
        self._expect(len(input_shape) == 3 and input_shape[0] > 0, "(H, W, C)", input_shape)
        _, W, C = input_shape
        return 1, W, 2 * C if self.mode == "mean_max" else C

    def forward(self, x: Array) -> Array:
        x = self._input(x)
        self._expect(x.ndim == 4, "(H, W, C)", x.shape[1:])
        kernel = (x.shape[1], 1)
        y, argmax = [], None
        if "mean" in self.mode:
            y.append(self._run("mean", ops.avg_pool2d_fwd, x, kernel))
        if "max" in self.mode:
            largest, argmax = self._run("max", ops.max_pool2d_fwd, x, kernel)
            y.append(largest)
        self._keep(argmax, x.shape)
        if len(y) == 1:
            return y[0]
        return self._run_array("y", array_module(x).concatenate, y, axis=-1)

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        argmax, shape = self._kept()
        if not need_dx:
            return None
        kernel, C = (shape[1], 1), shape[-1]
        if self.mode == "mean":
            return self._run("dx", ops.avg_pool2d_bwd, dy, shape, kernel)
        if self.mode == "max":
            return self._run("dx", ops.max_pool2d_bwd, dy, argmax, shape, kernel)
        means = self._run_array("dy_mean", _contiguous, dy[..., :C])
        maxima = self._run_array("dy_max", _contiguous, dy[..., C:])
        dx = self._run("dx", ops.max_pool2d_bwd, maxima, argmax, shape, kernel)
        dx_mean = self._run("dx_mean", ops.avg_pool2d_bwd, means, shape, kernel)
        return self._run_array("dx", array_module(dx).add, dx, dx_mean)


class Upsample2d(Layer):
    """Nearest neighbour: each pixel becomes ``scale`` of them.

    Parameters
    ----------
    scale : int or (h, w)
    """

    def __init__(self, scale: IntPair) -> None:
        super().__init__()
        self.scale = size_pair("Upsample2d", "scale", scale)

    def output_shape(self, input_shape: Shape) -> Shape:
        self._expect(len(input_shape) == 3, "(H, W, C)", input_shape)
        h, w = pair("Upsample2d", "scale", self.scale)
        H, W, C = input_shape
        return H * h, W * w, C

    def forward(self, x: Array) -> Array:
        y = self._run("y", ops.upsample2d_fwd, self._input(x), self.scale)
        self._keep()
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        self._kept()
        return self._run("dx", ops.upsample2d_bwd, dy, self.scale) if need_dx else None
