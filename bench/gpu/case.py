"""What a kernel is measured on: a case, computed by Stapes and by PyTorch's functions.

A case has inputs in our layout (NHWC, KRSC). PyTorch sees four-dimensional ones as NCHW (OIHW),
either contiguous so or as views of our memory, which it calls channels_last; in float64 the same
functions are the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Shapes = Callable[[int], dict[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Case:
    """A kernel and a shape.

    Attributes
    ----------
    name, group : str
        ``group`` is "pair", "first", "3x3" or "other": which target it belongs to.
    shapes : callable
        Batch size to shapes of the inputs by name; what is in ``wide`` stays float32, and
        ``ids`` is an int64 (N,) below the last shape's size.
    ours : callable
        ``(inputs, options, out)`` to result or tuple of results; ``out`` is an earlier result.
    theirs : callable
        Inputs as PyTorch sees them to a tuple of results.
    flops : callable
        Batch size to the number of floating-point operations, 0 where bytes alone count.
    ours_before, theirs_before : callable
        What is there before the time begins, such as what a forward pass saved.
    multiplies : bool
        Whether the precision of products can be chosen: tf32.
    fp32_only, batch_free : bool
        Whether it has no other precision; whether the batch size changes nothing.
    compared : bool
        Whether the results are those of PyTorch, to rounding.
    unread : frozenset of str
        Inputs of which only the shape counts.
    more_bytes : int
        Moved beside inputs and results: where inputs are updated in place.
    """

    name: str
    group: str
    shapes: Shapes
    ours: Callable[[Any, dict[str, Any], Any], Any]
    theirs: Callable[[Any], tuple[torch.Tensor, ...]]
    flops: Callable[[int], int] = lambda n: 0
    ours_before: Callable[[Any, dict[str, Any]], dict[str, Any]] = lambda a, p: {}
    theirs_before: Callable[[Any], dict[str, Any]] = lambda t: {}
    multiplies: bool = False
    fp32_only: bool = False
    batch_free: bool = False
    compared: bool = True
    more_bytes: int = 0
    unread: frozenset[str] = frozenset()
    wide: frozenset[str] = field(default=frozenset({"b", "gamma", "beta", "mean", "var"}))
