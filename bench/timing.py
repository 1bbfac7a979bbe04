"""Interleaved timing: ratios between functions measured in one run, on one machine, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from stapes import _core

PEAK_STEPS = 400_000


def fma_peak(float64: bool = False) -> float:
    """Measure the multiply-add rate of one core now, in FLOP/s."""
    start = time.perf_counter()
    flops: int = _core.fma_peak(PEAK_STEPS, float64)
    return flops / (time.perf_counter() - start)


def interleave(
    functions: Mapping[str, Callable[[], object]], *, seconds: float = 1.0, least: int = 7
) -> dict[str, float]:
    """Time functions in turn until ``seconds`` have passed.

    Every round also measures the peak, so that a machine that changes its clock changes all alike.

    Parameters
    ----------
    functions : mapping of str to callable
        Called without arguments.
    seconds : float
        Time to spend.
    least : int
        Rounds at least.

    Returns
    -------
    dict of str to float
        Median seconds of each function, and under ``"peak"`` the median FLOP/s of one core.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    peaks: list[float] = []
    for f in functions.values():
        f()
    end = time.perf_counter() + seconds
    while len(peaks) < least or time.perf_counter() < end:
        peaks.append(fma_peak())
        for name, f in functions.items():
            start = time.perf_counter()
            f()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()} | {
        "peak": statistics.median(peaks)
    }
