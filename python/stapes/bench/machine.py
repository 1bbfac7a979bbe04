"""The machine's limits, measured: multiply-adds and bytes a second."""

from __future__ import annotations

import platform
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stapes import _core
from stapes.bench.timing import Work, host_seconds

_PEAK_STEPS = 4_000_000
_COPY_BYTES = 64 << 20
_LEAST_MOVED = 16 << 20  # bytes in one timing: waking the threads must not count
_REPEATS = 7
_QUEUED = 10  # calls in one timing on a GPU


@dataclass(frozen=True)
class Machine:
    """What figures are relative to.

    Attributes
    ----------
    name, isa : str
        Of the processor or GPU, and the instructions in use.
    threads : int
        That compute.
    flops, core : float
        FLOP/s in multiply-adds, of all of them together and of one alone; on a GPU, both of the
        library's matrix product (in float16 where bfloat16 is measured).
    bandwidth : float
        Bytes/s read and written by a copy of 64 MiB.
    """

    name: str
    isa: str
    threads: int
    flops: float
    core: float
    bandwidth: float


def host(threads: int, *, float64: bool = False) -> Machine:
    """Measure the CPU with some threads."""
    flops = _core.fma_peak(_PEAK_STEPS, float64)
    alone = _median(lambda: host_seconds(lambda: _core.fma_peak(_PEAK_STEPS, float64)))
    with ThreadPoolExecutor(threads) as pool:

        def multiply() -> object:
            return list(pool.map(lambda _: _core.fma_peak(_PEAK_STEPS, float64), range(threads)))

        together = _median(lambda: host_seconds(multiply))
    bandwidth = copy_rate(2 * _COPY_BYTES, threads)
    return Machine(
        _cpu(), _core.isa(), threads, threads * flops / together, flops / alone, bandwidth
    )


def copy_rate(moved: int, threads: int) -> float:
    """Measure a copy that reads and writes so many bytes in all, in bytes/s.

    What fits into the caches is copied faster than memory could.
    """
    size = max(1, moved // 2 // threads)
    source, copy = np.ones((threads, size), np.uint8), np.zeros((threads, size), np.uint8)
    with ThreadPoolExecutor(threads) as pool:
        rounds = max(1, _LEAST_MOVED // moved)

        def some(i: int) -> None:
            for _ in range(rounds):
                np.copyto(copy[i], source[i])

        taken = _median(lambda: host_seconds(lambda: list(pool.map(some, range(threads)))))
    return 2 * source.nbytes * rounds / taken


def gpu(dtype: str) -> Machine:
    """Measure the current CUDA device by CuPy's copy and matrix product."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    size = 8192
    a, b = (cupy.ones((size, size), dtype if dtype != "bfloat16" else "float16") for _ in "ab")
    out = cupy.empty_like(a)
    source = cupy.ones(1 << 30, cupy.uint8)
    copy = cupy.empty_like(source)
    a @ b
    multiplying = _median(lambda: cuda_seconds(lambda: cupy.matmul(a, b, out=out)))
    copying = _median(lambda: cuda_seconds(lambda: cupy.copyto(copy, source)))
    name = properties["name"].decode()
    isa = f"sm_{properties['major']}{properties['minor']}"
    flops = 2 * size**3 / multiplying
    return Machine(name, isa, 1, flops, flops, 2 * source.nbytes / copying)


def cuda_seconds(work: Work) -> float:
    """Return how long the current stream needs for what a call gives it."""
    import cupy

    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    work()  # the device is busy with it while the next ones are queued
    begin.record()
    for _ in range(_QUEUED):
        work()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(begin, end)) / 1e3 / _QUEUED


def now() -> str:
    """Return the time, for a result's file."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _median(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(_REPEATS))


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", path.read_text(), re.M) if path.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()
