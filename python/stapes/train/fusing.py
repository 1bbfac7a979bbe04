"""Which layers of a network become one stage of its plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stapes.nn.activation import ReLU
from stapes.nn.chain import _Chain
from stapes.nn.conv import Conv2d
from stapes.nn.layer import Layer
from stapes.nn.linear import Linear
from stapes.nn.norm import BatchNorm2d
from stapes.nn.pool import GlobalAvgPool2d, MaxPool2d
from stapes.ops._args import padding, pair
from stapes.train.norm_stages import (
    FirstBlock,
    Folded,
    Normalised,
    NormalisedConvs,
    NormalisedMean,
)
from stapes.train.stages import Rectified, RectifiedPooled

_LARGEST_WINDOW = 255
"""Places of a pooling window that the fused kernel's uint8 argmax can tell, beside "dead"."""


def flat(chain: _Chain) -> Iterator[Layer]:
    """Yield the layers, those of nested Sequentials in their place."""
    for layer in chain.layers:
        if isinstance(layer, _Chain) and type(layer).forward is _Chain.forward:
            yield from flat(layer)
        else:
            yield layer


def fused(
    layers: Sequence[Layer], *, inference: bool = False, on_cpu: bool = False
) -> Iterator[Layer]:
    """Yield stages, each as long a run of layers as there is a kernel for."""
    i = 0
    chain: NormalisedConvs | None = None  # on the CPU, as many of them in a row as there are
    while i < len(layers):
        run = layers[i : i + 4]
        joined = _folded(run) if inference else _first_block(run) if on_cpu and i == 0 else None
        stage, count = joined or _rectified(run, inference=inference)
        i += count
        if on_cpu and isinstance(stage, NormalisedConvs):
            chain = NormalisedConvs(*(chain.blocks if chain else ()), *stage.blocks)
            continue
        if chain:
            yield chain
            chain = None
        yield stage
    if chain:
        yield chain


def _rectified(run: Sequence[Layer], *, inference: bool) -> tuple[Layer, int]:
    """Return a stage for as many of these layers as it can do: one, or up to ReLU and beyond."""
    head = run[0]
    if len(run) == 1 or type(run[1]) is not ReLU:
        return head, 1
    if isinstance(head, Conv2d | Linear):
        if len(run) > 2 and _pools_in_place(head, run[2]):
            return RectifiedPooled(head, run[2]), 3  # type: ignore[arg-type]
        return Rectified(head), 2
    if type(head) is BatchNorm2d:
        if len(run) > 2 and _pools_apart(run[2]):
            return Normalised(head, run[2]), 3  # type: ignore[arg-type]
        if len(run) > 2 and type(run[2]) is GlobalAvgPool2d:
            return NormalisedMean(head), 3
        if len(run) > 2 and _convolves(run[2:], inference=inference):
            return NormalisedConvs((head, run[2])), 3  # type: ignore[arg-type]
        return Normalised(head), 2
    return head, 1


def _first_block(run: Sequence[Layer]) -> tuple[FirstBlock, int] | None:
    """Return a stage for a network's first four layers, where its kernels are the faster ones."""
    if [type(layer) for layer in run] != [Conv2d, BatchNorm2d, ReLU, MaxPool2d]:
        return None
    conv, norm, _, pool = run
    stage = FirstBlock(conv, norm, pool)  # type: ignore[arg-type]
    fits = stage.pays(stage.layer.in_channels or 1) and _pools_in_place(conv, pool)
    return (stage, 4) if fits else None


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


def _convolves(run: Sequence[Layer], *, inference: bool) -> bool:
    """Tell whether this begins with a convolution that is not joined with what is behind it."""
    behind = type(run[1]) if len(run) > 1 else None
    joined = behind is ReLU or (inference and behind is BatchNorm2d)
    return type(run[0]) is Conv2d and not joined


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
