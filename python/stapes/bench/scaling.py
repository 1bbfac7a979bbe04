"""How the time of a training step grows with the batch, with the input's area and with threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

import stapes
from stapes.bench.networks import CLASSES, NETWORKS, Network
from stapes.bench.timing import OURS, Run, interleave
from stapes.bench.worker import Ours

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
AREAS = ((1, 1), (1, 2), (2, 1), (4, 2), (4, 4))
"""The input's height and width, in halves of the network's own."""


@dataclass(frozen=True)
class Setting:
    """A step that is timed.

    Attributes
    ----------
    axis : str
        What differs from the reference: "batch", "input" or "threads".
    size : float
        The work of it, where the reference's is 1; for threads their number.
    """

    axis: str
    label: str
    size: float
    network: Network
    batch: int
    threads: int = 1


@dataclass(frozen=True)
class Point:
    """What came out.

    Attributes
    ----------
    time : float
        Of the reference's, the median of the rounds' ratios.
    linear : float
        ``time / size``, for threads ``1 / (time * size)``: 1 is linear.
    """

    setting: Setting
    seconds: float
    spread: float
    time: float
    linear: float


def settings(name: str, batch: int, threads: int) -> Iterator[Setting]:
    """Yield the reference, a batch of this size in one thread, then all others.

    Raises
    ------
    ValueError
        If there is no such network.
    """
    if name not in NETWORKS:
        raise ValueError(f"--network: {name!r} is none of {', '.join(NETWORKS)}")
    network = NETWORKS[name]
    H, W, C = network.input_shape
    yield Setting("batch", str(batch), 1, network, batch)
    for size in BATCHES:
        if size != batch:
            yield Setting("batch", str(size), size / batch, network, size)
    for down, across in AREAS:
        shape = (max(1, H * down // 2), max(1, W * across // 2), C)
        if shape != network.input_shape:
            area = shape[0] * shape[1] / (H * W)
            other = replace(network, input_shape=shape)
            yield Setting("input", f"{shape[0]} x {shape[1]}", area, other, batch)
    for count in range(2, threads + 1):
        yield Setting("threads", str(count), count, network, batch, count)


def measure(chosen: list[Setting], seconds: float) -> tuple[list[Point], Run]:
    """Time all settings in turn, in this process.

    Parameters
    ----------
    chosen : list of Setting
        The reference first.
    """
    names = [OURS, *(f"{s.axis} {s.label}" for s in chosen[1:])]
    run = interleave(
        {name: _step(s) for name, s in zip(names, chosen, strict=True)}, seconds=seconds
    )
    points = []
    for name, setting in zip(names, chosen, strict=True):
        time = 1.0 if name == OURS else run.ratios[name].median
        parallel = setting.axis == "threads"
        linear = 1 / (time * setting.size) if parallel else time / setting.size
        took = run.times[name]
        points.append(Point(setting, took.median, took.spread, time, linear))
    return points, run


def _step(setting: Setting) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((setting.batch, *setting.network.input_shape), dtype=np.float32)
    ours = Ours(setting.network, x, rng.integers(0, CLASSES, setting.batch))
    for _ in range(2):  # its buffers are made, and it is recorded
        ours.train()

    def step() -> object:
        stapes.set_num_threads(setting.threads)
        return ours.train()

    return step
