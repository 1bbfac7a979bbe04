"""Named convolutions, of which the tests take the same ones with fewer images."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Self

from stapes import _core
from stapes.ops._args import padding, pair


@dataclass(frozen=True)
class ConvCase:
    """A convolution: x is (N, H, W, C), w is (K, R, S, C / groups)."""

    name: str
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the convolutions in `stapes.ops`."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    @property
    def dense_options(self) -> dict[str, Any]:
        """The same for operators that know neither dilation nor groups."""
        return {"stride": self.stride, "padding": self.padding}

    @property
    def output(self) -> tuple[int, ...]:
        """The shape of y, (N, P, Q, K).

        Raises
        ------
        ValueError
            If these shapes do not go together.
        """
        name = "conv2d_fwd"
        return _core.conv2d_fwd_shape(
            name,
            self.x,
            self.w,
            pair(name, "stride", self.stride),
            padding(name, self.padding),
            pair(name, "dilation", self.dilation),
            self.groups,
        )

    def images(self, N: int) -> Self:
        """Return the same for another number of images."""
        return replace(self, x=(N, *self.x[1:]))

    def __str__(self) -> str:
        return self.name


SHAPES = (
    ConvCase("first_c3", (32, 64, 64, 3), (32, 3, 3, 3), padding=1),
    ConvCase("first_c1", (32, 64, 64, 1), (32, 3, 3, 1), padding=1),
    ConvCase("conv2", (32, 32, 32, 32), (64, 3, 3, 32), padding=1),
    ConvCase("c64", (32, 16, 16, 64), (128, 3, 3, 64), padding=1),
    ConvCase("c128", (32, 8, 8, 128), (128, 3, 3, 128), padding=1),
    ConvCase("1x1", (32, 16, 16, 64), (64, 1, 1, 64)),
    ConvCase("3x3_stride2", (32, 33, 32, 32), (64, 3, 3, 32), stride=2, padding=1),
    ConvCase("grouped", (32, 32, 32, 64), (64, 3, 3, 8), padding=1, groups=8),
    ConvCase("depthwise", (32, 16, 16, 64), (64, 3, 3, 1), padding=1, groups=64),
    ConvCase("1d_1x80_stride4", (32, 1, 16000, 1), (64, 1, 80, 1), stride=(1, 4)),
    ConvCase("dense1", (32, 1, 1, 16384), (64, 1, 1, 16384)),
)
"""Layers of the networks that are measured; the sizes of a batch of 32."""

_FORM = "NxHxWxC,KxRxSxC[,stride=2][,padding=1][,dilation=1][,groups=1]"


def shape(text: str) -> ConvCase:
    """Return the shape of this name, or the one that the text describes.

    Parameters
    ----------
    text : str
        A name in `SHAPES`, or ``32x64x64x3,32x3x3x3,padding=1``: x, w, and options of one number,
        or of two as in ``stride=1x4``.

    Raises
    ------
    ValueError
        If it is neither.
    """
    for case in SHAPES:
        if case.name == text:
            return case
    x, w, *options = [*text.split(","), ""][: max(2, text.count(",") + 1)]
    settings = dict(option.partition("=")[::2] for option in options)
    known = {"stride", "padding", "dilation", "groups"}
    if len(_sizes(x)) != 4 or len(_sizes(w)) != 4 or not settings.keys() <= known:
        names = ", ".join(case.name for case in SHAPES)
        raise ValueError(f"--shape: {text!r} is none of {names}, and not {_FORM}")
    values: dict[str, Any] = {}
    for name, value in settings.items():
        numbers = _sizes(value)
        if len(numbers) not in (1, 2) or (name == "groups" and len(numbers) == 2):
            raise ValueError(f"--shape: {name} must be a number or two such as 1x4, got {value!r}")
        values[name] = numbers[0] if len(numbers) == 1 else numbers
    case = ConvCase(text, _sizes(x), _sizes(w), **values)  # type: ignore[arg-type]
    try:
        case.output  # noqa: B018 - raises where the shapes do not go together
    except ValueError as error:
        raise ValueError(f"--shape: {error}") from None
    return case


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x"))) if re.fullmatch(r"\d+(x\d+)*", text) else ()
