"""What a training step on the CPU needs of memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from stapes.nn.chain import _Chain
from stapes.nn.layer import Shape
from stapes.train.compiled import Compiled
from stapes.train.plan import Plan


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a step has of memory, and keeps for the next one.

    Attributes
    ----------
    weights : int
        Weights, their gradients and what the optimizer keeps for each.
    buffers : int
        The batch, activations, gradients of activations.
    """

    weights: int
    buffers: int

    @property
    def total(self) -> int:
        """All of it; kernels take a few MiB more, chains of normalised convolutions two maps."""
        return self.weights + self.buffers


def step_memory(
    model: _Chain, compiled: Compiled, input_shape: Shape, batch_size: int
) -> StepMemory:
    """Return what a step of a compiled network on the CPU needs.

    Buffers grow by the same with every sample, so steps of 2 and of 3 samples, on a copy of the
    layers, tell how many a batch of any size has.

    Parameters
    ----------
    input_shape : tuple of int
        Of a sample.
    """
    copy = _Chain(*deepcopy(model.layers))
    copy.train()
    fuse = compiled.plan.fuse
    plan = Plan(copy, fuse=fuse, probabilities=compiled.entropy, on_cpu=True)
    two, three = (_buffers(plan, (n, *input_shape), compiled.dtype) for n in (2, 3))
    weights = sum(p._data.nbytes for p in copy.parameters())
    kept = sum(b.nbytes for b in copy.buffers().values())
    copies = 2 + len(compiled.optimizer._slots)
    return StepMemory(weights * copies + kept, two + (batch_size - 2) * (three - two))


def _buffers(plan: Plan, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    x = np.zeros(shape, dtype)
    with plan.buffers(shape) as buffers:
        output = plan.forward(x)
        plan.backward(np.zeros_like(output))
    memory = {id(m): m.nbytes for m in map(_owner, _arrays(buffers.slots))}
    return int(x.nbytes + sum(memory.values()))


def _arrays(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))
    elif isinstance(value, Iterable):
        for item in value:
            yield from _arrays(item)


def _owner(array: Any) -> Any:
    while array.base is not None:
        array = array.base
    return array
