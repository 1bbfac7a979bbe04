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
_REPEATS = 7


@dataclass(frozen=True)
class Machine:
    """What figures are relative to.

    Attributes
    ----------
    name, isa : str
        Of the processor or GPU, and the instructions in use.
    threads : int
        That compute.
    flops : float
        FLOP/s of all of them in multiply-adds; on a GPU, of the library's matrix product.
    bandwidth : float
        Bytes/s read and written by a copy of 64 MiB.
    """

    name: str
    isa: str
    threads: int
    flops: float
    bandwidth: float


def host(threads: int, *, float64: bool = False) -> Machine:
    """Measure the CPU with some threads."""
    with ThreadPoolExecutor(threads) as pool:

        def together(work: Callable[[int], object]) -> float:
            return host_seconds(lambda: list(pool.map(work, range(threads))))

        flops = threads * _core.fma_peak(_PEAK_STEPS, float64)
        multiplying = _median(lambda: together(lambda _: _core.fma_peak(_PEAK_STEPS, float64)))
        source = np.ones((threads, _COPY_BYTES // threads), np.uint8)
        copy = np.zeros_like(source)
        copying = _median(lambda: together(lambda i: np.copyto(copy[i], source[i])))
    return Machine(_cpu(), _core.isa(), threads, flops / multiplying, 2 * source.nbytes / copying)


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
    return Machine(name, isa, 1, 2 * size**3 / multiplying, 2 * source.nbytes / copying)


def cuda_seconds(work: Work) -> float:
    """Return how long the current stream needs for what a call gives it."""
    import cupy

    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(begin, end)) / 1e3


def now() -> str:
    """Return the time, for a result's file."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _median(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(_REPEATS))


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", path.read_text(), re.M) if path.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()
