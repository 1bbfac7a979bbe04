"""Ready-made networks for classifying sound, by name; sizes are inferred from the first input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stapes.nn import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    TimePool,
)

__all__ = ["NAMES", "build"]


def build(name: str, classes: int, *, seed: int | None = None) -> Sequential:
    """Make a network.

    Parameters
    ----------
    name : {"cnn", "seed", "mlp"}
        - ``"cnn"``: convolutions with batch normalisation that halve the time at each step, then
          mean and maximum over time of each frequency: what is heard counts and not when, but how
          high it is still does. About 90,000 weights; takes clips of any length.
        - ``"seed"``: the reference network of the benchmarks, convolutions of 32 and 64 channels
          with max pooling, and a dense layer of 64.
        - ``"mlp"``: dense layers of 64 and 32, for features that are small already.
    classes : int
        Number of outputs, which are logits.
    seed : int, optional
        Of the weights.

    Returns
    -------
    Sequential
        Its other sizes are inferred from the input's shape, (frames, bands, 1).

    Raises
    ------
    ValueError
        If there is no such name, or ``classes`` is below 2.

    Examples
    --------
    >>> net = build("seed", 10)
    >>> net.build((64, 64, 3))
    (10,)
    """
    if name not in _LAYERS:
        raise ValueError(f"models.build: name must be one of {', '.join(NAMES)}, got {name!r}")
    if classes < 2:
        raise ValueError(f"models.build: there must be at least 2 classes, got {classes}")
    return Sequential(*_LAYERS[name](classes), seed=seed)


def _cnn(classes: int) -> list[Layer]:
    return [
        *_block(16, (5, 3), pool=(1, 2)),
        *_block(32, (3, 3), pool=(1, 2)),
        *_block(64, (3, 3), pool=(1, 2)),
        *_block(96, (3, 3)),
        TimePool("mean_max"),
        Flatten(),
        Dropout(0.3),
        Linear(None, classes),
    ]


def _block(
    channels: int,
    kernel: tuple[int, int],
    *,
    stride: tuple[int, int] = (2, 1),
    pool: tuple[int, int] | None = None,
) -> list[Layer]:
    """Convolution, normalisation, ReLU, and the maximum of neighbours; sizes are (time, band)."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    conv = Conv2d(None, channels, kernel, stride=stride, padding=padding, bias=False)
    layers: list[Layer] = [conv, BatchNorm2d(channels), ReLU()]
    return layers if pool is None else [*layers, MaxPool2d(pool)]


def _seed(classes: int) -> list[Layer]:
    return [
        Conv2d(None, 32, 3, padding="same"),
        ReLU(),
        MaxPool2d(2),
        Conv2d(None, 64, 3, padding="same"),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(None, 64),
        ReLU(),
        Linear(None, classes),
    ]


def _mlp(classes: int) -> list[Layer]:
    return [
        Flatten(),
        Linear(None, 64),
        ReLU(),
        Linear(None, 32),
        ReLU(),
        Linear(None, classes),
    ]


_LAYERS: Mapping[str, Callable[[int], list[Any]]] = {"cnn": _cnn, "seed": _seed, "mlp": _mlp}

NAMES = tuple(_LAYERS)
"""The names that `build` takes, the default of the command line first."""
