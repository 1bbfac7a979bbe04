"""Which layers of a network become one stage of its plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stapes.nn.activation import ReLU
from stapes.nn.chain import _Chain
from stapes.nn.conv import Conv2d
from stapes.nn.layer import Layer
from stapes.nn.linear import Linear
from stapes.nn.norm import BatchNorm2d
from stapes.nn.pool import MaxPool2d
from stapes.ops._args import padding, pair
from stapes.train.stages import Folded, Normalised, NormalisedConv, Rectified, RectifiedPooled

_LARGEST_WINDOW = 255
"""Places of a pooling window that the fused kernel's uint8 argmax can tell, beside "dead"."""


def flat(chain: _Chain) -> Iterator[Layer]:
    """Yield the layers, those of nested Sequentials in their place."""
    for layer in chain.layers:
        if isinstance(layer, _Chain) and type(layer).forward is _Chain.forward:
            yield from flat(layer)
        else:
            yield layer


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
