"""Measures operators on shapes, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stapes import ops
from stapes.bench import kernels, peers
from stapes.bench.machine import Machine, copy_rate, cuda_seconds
from stapes.bench.report import Row
from stapes.bench.shapes import SHAPES, ConvCase
from stapes.bench.timing import OURS, host_seconds, interleave
from stapes.device import Array, to_device


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes
    ----------
    seconds : float
        For each operator and shape.
    """

    dtype: str
    device: str
    threads: int
    peers: Sequence[str]
    seconds: float


def plan(wanted: Sequence[str], shapes: Sequence[ConvCase]) -> list[tuple[str, ConvCase]]:
    """Return what is to be measured: the operators, all unless named, on the shapes they take.

    Raises
    ------
    ValueError
        If there is no operator of a name, or none is left.
    """
    known = kernels.KERNELS
    chosen = [name for name in known if not wanted or any(name.startswith(op) for op in wanted)]
    for op in wanted:
        if not any(name.startswith(op) for name in known):
            raise ValueError(f"--op: {op!r} begins none of {', '.join(known)}")
    work = [(op, case) for case in shapes or SHAPES for op in chosen if known[op].takes(case)]
    if not work:
        raise ValueError(f"none of {', '.join(chosen)} takes {', '.join(map(str, shapes))}")
    return work


def rows(work: Sequence[tuple[str, ConvCase]], s: Settings, machine: Machine) -> Iterator[Row]:
    """Measure one piece of work after another."""
    for op, case in work:
        yield measure(op, case, s, machine)


def measure(op: str, case: ConvCase, s: Settings, machine: Machine) -> Row:
    """Measure one operator on one shape beside the peers."""
    kernel = kernels.KERNELS[op]
    host = kernels.host_arrays(case, "float64" if s.dtype == "float64" else "float32")
    arrays = kernels.on_device(host, s.dtype, s.device)
    task = kernel.task(arrays, case)
    exact = _exact(op, case, arrays)
    first = task.run(None)
    functions: dict[str, Callable[[], Any]] = {OURS: lambda: task.run(first)}
    got = {OURS: [to_device(a, "cpu") for a in kernels.results(first)]}
    moved = sum(a.nbytes for a in (*task.reads, *kernels.results(first)))
    for peer in s.peers:
        made = peers.work(peer, op, host, case, s.dtype, s.device)
        if made is not None:
            functions[peer] = made
            got[peer] = [peers.to_host(a) for a in kernels.results(made())]
    errors = {
        name: _error(values, exact)
        for name, values in got.items()
        if not (name == OURS and s.dtype == "float64")  # which is what the others are compared with
    }
    run = interleave(
        functions,
        seconds=s.seconds,
        float64=s.dtype == "float64",
        clock=cuda_seconds if s.device == "cuda" else host_seconds,
    )
    flops = kernels.flops(kernel, case, host["y"].size)
    peak, bandwidth = machine.flops, machine.bandwidth
    if s.device == "cpu":
        peak = run.peak * machine.flops / machine.core
        bandwidth = copy_rate(moved, s.threads)
    limit = max(flops / peak, moved / bandwidth)
    on = str(case)
    key = (op, on, s.dtype, s.device, s.threads)
    return Row(*key, flops, moved, peak, limit, run.times, run.ratios, errors, run.disturbed)


def _exact(op: str, case: ConvCase, arrays: kernels.Arrays) -> list[Array]:
    """Return the results in float64, by the CPU's kernels of that precision, of the same numbers.

    That includes what a forward pass before it left, such as the places of maxima.
    """
    wide = kernels.Arrays()
    for name, value in vars(arrays).items():
        setattr(wide, name, _widened(value))
    task = kernels.KERNELS[op].task(wide, case)
    return list(kernels.results(task.run(None)))


def _widened(array: Array) -> Array:
    if array.dtype.kind in "iu":
        return to_device(array, "cpu")
    if array.dtype.itemsize == 2:
        array = ops.cast(array, np.float32)
    return to_device(array, "cpu").astype(np.float64)


def _error(got: list[Array], exact: list[Array]) -> float:
    """Return the largest relative distance of a result from that in float64."""
    pairs = [
        (np.asarray(a, np.float64).ravel(), b.ravel())
        for a, b in zip(got, exact, strict=False)
        if b.dtype.kind == "f"
    ]
    return max(float(np.linalg.norm(a - b)) / (float(np.linalg.norm(b)) or 1) for a, b in pairs)
