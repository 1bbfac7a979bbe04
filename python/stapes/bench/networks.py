"""Named networks whose training step and inference are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stapes import models
from stapes.nn import (
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)
from stapes.nn.layer import Shape

CLASSES = 10


@dataclass(frozen=True)
class Network:
    """A network and its input.

    Attributes
    ----------
    input_shape : tuple of int
        (H, W, C) of a sample.
    make : callable
        Returns new layers.
    """

    name: str
    input_shape: Shape
    make: Callable[[], list[Layer]]

    def build(self) -> Sequential:
        """Return the network with its first weights, always the same: He uniform."""
        net = Sequential(*self.make(), seed=0)
        net.build(self.input_shape)
        return net


def _seed() -> list[Layer]:
    return models.build("seed", CLASSES).layers


def _default() -> list[Layer]:
    return models.build("cnn", CLASSES).layers


def _plain() -> list[Layer]:
    layers: list[Layer] = []
    for K in (16, 32, 64):
        layers += [Conv2d(None, K, 3, padding="same"), ReLU(), MaxPool2d(2)]
    return [*layers, Flatten(), Linear(None, CLASSES)]


def _normalised() -> list[Layer]:
    layers: list[Layer] = []
    for K in (32, 64, 64, 128):
        conv = Conv2d(None, K, 3, padding="same", bias=False)
        layers += [conv, BatchNorm2d(K), ReLU(), MaxPool2d(2)]
    return [*layers, GlobalAvgPool2d(), Linear(None, CLASSES)]


def _keyword() -> list[Layer]:
    """Make a depthwise-separable network. Zhang et al., Hello Edge, 2017 (DS-CNN S)."""
    K = 64
    first = Conv2d(None, K, (10, 4), stride=2, padding=(5, 1), bias=False)
    layers: list[Layer] = [first, BatchNorm2d(K), ReLU()]
    for _ in range(4):
        layers += [Conv2d(K, K, 3, padding="same", groups=K, bias=False), BatchNorm2d(K), ReLU()]
        layers += [Conv2d(K, K, 1, bias=False), BatchNorm2d(K), ReLU()]
    return [*layers, GlobalAvgPool2d(), Linear(None, CLASSES)]


NETWORKS = {
    network.name: network
    for network in (
        Network("seed_64x64x3", (64, 64, 3), _seed),
        Network("seed_64x64x1", (64, 64, 1), _seed),
        Network("seed_128x128x1", (128, 128, 1), _seed),
        Network("plain_97x161x1", (97, 161, 1), _plain),
        Network("batch_norm_64x96x1", (64, 96, 1), _normalised),
        Network("keyword_40x101x1", (40, 101, 1), _keyword),
        Network("cnn_201x64x1", (201, 64, 1), _default),
    )
}
"""The reference network at three sizes; three that no kernel was made for; the default one."""


def training_flops(net: Sequential, input_shape: Shape) -> int:
    """Count a sample's dense operations: forward and the two gradients, without the first dgrad."""
    flops = [layer.flops(s) for layer, s in zip(net.layers, net.shapes(input_shape), strict=False)]
    return 3 * sum(flops) - next(f for f in flops if f)
