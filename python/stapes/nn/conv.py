"""Convolutions over time and frequency."""

from __future__ import annotations

from typing import Any

from stapes import _core, ops
from stapes.device import Array
from stapes.nn._args import flag, optional_size, padding_like, size, size_pair
from stapes.nn.layer import Shape
from stapes.nn.linear import _Weighted
from stapes.ops._args import IntPair, PaddingLike, padding, pair


class _Conv(_Weighted):
    """What the convolutions share: channels, and how a weight's shape follows from them."""

    in_channels: int | None
    out_channels: int

    @property
    def weight_shape(self) -> Shape:
        """Shape of the weights; RuntimeError while ``in_channels`` is not known."""
        raise NotImplementedError

    def _infer(self, input_shape: Shape) -> None:
        if self.in_channels is None and input_shape:
            self.in_channels = input_shape[-1]

    def _expect_channels(self, layout: str, input_shape: Shape) -> None:
        ok = len(input_shape) == layout.count(",") + 1
        ok = ok and self.in_channels in (None, input_shape[-1])
        self._expect(ok, layout.replace("C", str(self.in_channels or "C")), input_shape)


class Conv2d(_Conv):
    """Convolution over (N, H, W, C); weights (K, R, S, C / groups).

    Parameters
    ----------
    in_channels : int or None
        None: taken from the first input or from `build`.
    out_channels : int
    kernel_size, stride, dilation : int or (h, w)
    padding : int, (h, w), ((top, bottom), (left, right)), "same" or "valid"
    groups : int
        Divides both numbers of channels; ``in_channels`` makes it depthwise.
    bias : bool
    seed : int, optional
        See `Layer`. Weights are He uniform (fan in R * S * C / groups), the bias is zero.
    """

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: PaddingLike = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        self.in_channels = optional_size("Conv2d", "in_channels", in_channels)
        self.out_channels = size("Conv2d", "out_channels", out_channels)
        self.kernel_size = size_pair("Conv2d", "kernel_size", kernel_size)
        self.stride = size_pair("Conv2d", "stride", stride)
        self.padding = padding_like("Conv2d", padding)
        self.dilation = size_pair("Conv2d", "dilation", dilation)
        self.groups = size("Conv2d", "groups", groups)
        self._use_bias = flag("Conv2d", "bias", bias)
        self._check_groups(self.in_channels or 0)

    def _check_groups(self, in_channels: int) -> None:
        if in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"{self._label()}: groups ({self.groups}) must divide in_channels ({in_channels})"
                f" and out_channels ({self.out_channels})"
            )

    @property
    def weight_shape(self) -> Shape:
        """(K, R, S, C / groups); RuntimeError while C is not known."""
        C = self._known("in_channels", self.in_channels)
        return self.out_channels, *pair("Conv2d", "kernel_size", self.kernel_size), C // self.groups

    def _init_weights(self) -> None:
        K, R, S, C = self.weight_shape
        self._draw((K, R, S, C), R * S * C, K)

    def output_shape(self, input_shape: Shape) -> Shape:
        self._expect_channels("(H, W, C)", input_shape)
        R, S = pair("Conv2d", "kernel_size", self.kernel_size)
        self._check_groups(input_shape[-1])
        return self._sized(
            _core.conv2d_fwd_shape,
            input_shape,
            (self.out_channels, R, S, input_shape[-1] // self.groups),
            pair("Conv2d", "stride", self.stride),
            padding("Conv2d", self.padding),
            pair("Conv2d", "dilation", self.dilation),
            self.groups,
        )

    def flops(self, input_shape: Shape) -> int:
        P, Q, K = self.output_shape(input_shape)
        _, R, S, C = self.weight_shape
        return 2 * P * Q * K * R * S * C

    def _window(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "precision": self._precision,
        }

    def forward(self, x: Array) -> Array:
        return self._forward(x)

    def _forward(self, x: Array, activation: str | None = None) -> Array:
        """As `forward`; ``activation="relu"`` is computed in the same pass."""
        x = self._input(x)
        w, b = self.weight.like(x), self._bias_data()
        y = self._run("y", ops.conv2d_fwd, x, w, b, **self._window(), activation=activation)
        self._keep(x)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        (x,) = self._kept()
        w = self.weight
        ops.conv2d_wgrad(dy, x, w.shape, **self._window(), out=w.gradient())
        if self.bias is not None:
            ops.conv2d_bgrad(dy, out=self.bias.gradient())
        if not need_dx:
            return None
        return self._run("dx", ops.conv2d_dgrad, dy, w.like(dy), x.shape, **self._window())


class Conv1d(Conv2d):
    """Convolution over (N, L, C), by `Conv2d` with H = R = 1; weights (K, 1, S, C / groups).

    torch's (K, C / groups, S) weights come in by `stapes.nn.convert.conv_weight`.

    Parameters
    ----------
    in_channels : int or None
        None: taken from the first input or from `build`.
    out_channels, kernel_size, stride, dilation, groups : int
    padding : int, (left, right), "same" or "valid"
    bias : bool
    seed : int, optional
        See `Layer`. Weights are He uniform (fan in S * C / groups), the bias is zero.
    """

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            (1, size("Conv1d", "kernel_size", kernel_size)),
            (1, size("Conv1d", "stride", stride)),
            padding if isinstance(padding, str) else ((0, 0), pair("Conv1d", "padding", padding)),
            (1, size("Conv1d", "dilation", dilation)),
            groups,
            bias,
            seed=seed,
        )
        self._padding_1d = padding_like("Conv1d", padding)

    def _argument(self, name: str) -> Any:
        if name == "padding":
            return self._padding_1d
        value = super()._argument(name)
        return value[1] if name in ("kernel_size", "stride", "dilation") else value

    def output_shape(self, input_shape: Shape) -> Shape:
        self._expect_channels("(L, C)", input_shape)
        return super().output_shape((1, *input_shape))[1:]

    def flops(self, input_shape: Shape) -> int:
        Q, K = self.output_shape(input_shape)
        _, R, S, C = self.weight_shape
        return 2 * Q * K * R * S * C

    def _forward(self, x: Array, activation: str | None = None) -> Array:
        x = self._input(x)
        if x.ndim != 3:
            raise ValueError(f"{self._label()}: x must be (N, L, C), got shape {x.shape}")
        return super()._forward(x[:, None], activation)[:, 0]

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        dx = super().backward(dy[:, None], need_dx)
        return None if dx is None else dx[:, 0]


class ConvTranspose2d(_Conv):
    """Transposed convolution over (N, H, W, C_in); weights (C_in, R, S, C_out).

    Parameters
    ----------
    in_channels : int or None
        None: taken from the first input or from `build`.
    out_channels : int
    kernel_size, stride, output_padding : int or (h, w)
    padding : int, (h, w) or ((top, bottom), (left, right))
        What is cut off the output's border.
    bias : bool
    seed : int, optional
        See `Layer`. Weights are He uniform (fan in R * S * C_in), the bias is zero.
    """

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: PaddingLike = 0,
        output_padding: IntPair = 0,
        bias: bool = True,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        name = "ConvTranspose2d"
        self.in_channels = optional_size(name, "in_channels", in_channels)
        self.out_channels = size(name, "out_channels", out_channels)
        self.kernel_size = size_pair(name, "kernel_size", kernel_size)
        self.stride = size_pair(name, "stride", stride)
        self.padding = padding_like(name, padding)
        self.output_padding = size_pair(name, "output_padding", output_padding, least=0)
        self._use_bias = flag(name, "bias", bias)

    @property
    def weight_shape(self) -> Shape:
        """(C_in, R, S, C_out); RuntimeError while C_in is not known."""
        C = self._known("in_channels", self.in_channels)
        return C, *pair("ConvTranspose2d", "kernel_size", self.kernel_size), self.out_channels

    def _init_weights(self) -> None:
        C, R, S, K = self.weight_shape
        self._draw((C, R, S, K), R * S * C, K)

    def output_shape(self, input_shape: Shape) -> Shape:
        self._expect_channels("(H, W, C)", input_shape)
        R, S = pair("ConvTranspose2d", "kernel_size", self.kernel_size)
        return self._sized(
            lambda _, *rest: _core.conv_transpose2d_fwd_shape(*rest),
            input_shape,
            (input_shape[-1], R, S, self.out_channels),
            pair("ConvTranspose2d", "stride", self.stride),
            padding("ConvTranspose2d", self.padding),
            pair("ConvTranspose2d", "output_padding", self.output_padding),
        )

    def flops(self, input_shape: Shape) -> int:
        H, W, C = input_shape
        _, R, S, K = self.weight_shape
        return 2 * H * W * C * R * S * K

    def _window(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "output_padding": self.output_padding,
            "precision": self._precision,
        }

    def forward(self, x: Array) -> Array:
        x = self._input(x)
        w, b = self.weight.like(x), self._bias_data()
        y = self._run("y", ops.conv_transpose2d_fwd, x, w, b, **self._window())
        self._keep(x)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        (x,) = self._kept()
        w = self.weight
        ops.conv_transpose2d_wgrad(dy, x, w.shape, **self._window(), out=w.gradient())
        if self.bias is not None:
            ops.conv2d_bgrad(dy, out=self.bias.gradient())
        if not need_dx:
            return None
        return self._run(
            "dx", ops.conv_transpose2d_dgrad, dy, w.like(dy), x.shape, **self._window()
        )
